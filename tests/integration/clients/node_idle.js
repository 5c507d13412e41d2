// A node-postgres pool with one idle connection. It ends when that connection is closed: by the
// handler that "handled" asks for, or by the error that nothing handles.
const { Pool } = require("pg");

const pool = new Pool();
if (process.argv[2] === "handled") {
  pool.on("error", () => pool.end());
}
pool.query("SELECT 1").then(() => console.log("idle"));
