// Writes a row by the PostgreSQL JDBC driver, and prints how many hours its TIMESTAMP DEFAULT NOW()
// is away from UTC.
const env = java.lang.System.getenv();
const url = "jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE");
const connection = java.sql.DriverManager.getConnection(url, env.get("PGUSER"), env.get("PGPASSWORD"));
const answers = connection.createStatement().executeQuery(
  "INSERT INTO users (email, password_hash) VALUES ('" + arguments[0] + "', '') " +
  "RETURNING round(extract(epoch FROM created_at - now() AT TIME ZONE 'UTC') / 3600)");
answers.next();
print(answers.getInt(1));
connection.close();
