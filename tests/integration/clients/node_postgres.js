// The work of tests/support/drivers.py for node-postgres with its defaults. The address is in PG*
// variables.
const { Pool } = require("pg");

const name = process.argv[2];
const [clients, rounds, rolledBackRound, statements] = process.argv.slice(3).map(Number);
const pool = new Pool();
let right = 0;

async function act(client) {
  for (let round = 0; round < rounds; round++) {
    const connection = await pool.connect();
    try {
      await connection.query("BEGIN");
      for (let number = 0; number < statements; number++) {
        const tag = `client ${client} statement ${number}`;
        // node-postgres prepares a query that has a name.
        const query = { name: tag, text: `SELECT '${tag} ' || $1::text AS answer`, values: [round] };
        const { rows } = await connection.query(query);
        if (rows[0].answer === `${tag} ${round}`) right++;
      }
      await connection.query({
        name: "insert",
        text: "INSERT INTO users (email, password_hash, name) VALUES ($1, '', $2)",
        values: [`${name} ${client} ${round}`, name],
      });
      await connection.query(round === rolledBackRound ? "ROLLBACK" : "COMMIT");
    } finally {
      connection.release();
    }
  }
}

Promise.all(Array.from({ length: clients }, (_, client) => act(client)))
  .then(() => pool.end())
  .then(() => console.log(right));
