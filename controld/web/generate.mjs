// Makes src/gen from the contract, with protoc (Debian: protobuf-compiler and libprotobuf-dev) and protoc-gen-es.
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const contract = join(here, "../../proto");
const out = join(here, "src/gen");
const files = readdirSync(join(contract, "horcrux/v1")).filter((name) => name.endsWith(".proto"));

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const made = spawnSync(
    "protoc",
    [
        `--proto_path=${contract}`,
        `--plugin=protoc-gen-es=${join(here, "node_modules/.bin/protoc-gen-es")}`,
        `--es_out=${out}`,
        "--es_opt=target=ts",
        ...files.map((name) => `horcrux/v1/${name}`),
    ],
    { stdio: "inherit" },
);
if (made.error?.code === "ENOENT") {
    console.error("protoc is missing: apt-get install protobuf-compiler libprotobuf-dev");
}
process.exit(made.status ?? 1);
