// The work of tests/support/drivers.py for the PostgreSQL JDBC driver with its defaults. Rhino runs
// it, because a machine that runs Flyway has Java but no compiler. The address is in PG* variables.
const name = arguments[0], clients = +arguments[1], rounds = +arguments[2];
const rolledBackRound = +arguments[3], statements = +arguments[4];
const env = java.lang.System.getenv();
const url = "jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE");
const right = new java.util.concurrent.atomic.AtomicInteger();

function act(client) {
  const connection = java.sql.DriverManager.getConnection(url, env.get("PGUSER"), env.get("PGPASSWORD"));
  connection.setAutoCommit(false);
  for (let round = 0; round < rounds; round++) {
    for (let number = 0; number < statements; number++) {
      let tag = "client " + client + " statement " + number;
      // The driver recognises a statement by its text, and prepares it at its 5th run.
      let query = connection.prepareStatement("SELECT '" + tag + " ' || ?::text");
      query.setInt(1, round);
      let answers = query.executeQuery();
      answers.next();
      if (String(answers.getString(1)) === tag + " " + round) right.incrementAndGet();
      query.close();
    }
    let insert = connection.prepareStatement("INSERT INTO users (email, password_hash, name) VALUES (?, '', ?)");
    insert.setString(1, name + " " + client + " " + round);
    insert.setString(2, name);
    insert.executeUpdate();
    insert.close();
    if (round === rolledBackRound) connection.rollback();
    else connection.commit();
  }
  connection.close();
}

function tryToAct(client) {
  try {
    act(client);
  } catch (error) {
    java.lang.System.err.println(error);
    java.lang.System.exit(1);
  }
}

const threads = [];
for (let index = 0; index < clients; index++) {
  threads.push(new java.lang.Thread(new java.lang.Runnable({ run: tryToAct.bind(null, index) })));
}
threads.forEach((thread) => thread.start());
threads.forEach((thread) => thread.join());
print(right.get());
