// Makes src/gen, the client's half of the contract, from the .proto files, with Debian's protoc (protobuf-compiler and
// libprotobuf-dev). Nothing of it is kept under version control.

import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const protos = `${here}../../proto`;
const files = readdirSync(`${protos}/horcrux/v1`).filter((name) => name.endsWith(".proto"));
rmSync(`${here}src/gen`, { recursive: true, force: true });
mkdirSync(`${here}src/gen`);
execFileSync(
  "protoc",
  [
    `-I${protos}`,
    `--plugin=protoc-gen-es=${here}node_modules/.bin/protoc-gen-es`,
    `--es_out=${here}src/gen`,
    "--es_opt=target=ts",
    ...files.map((name) => `${protos}/horcrux/v1/${name}`),
  ],
  { stdio: "inherit" },
);
