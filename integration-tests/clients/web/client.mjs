// A stock gRPC-web client, and the published .proto files as `buf build` gives them.
//
// client.mjs DESCRIPTORS URL CA_FILE USER PASSWORD_FILE
//
// Signs in as a browser does, with a cookie. Prints one JSON object.

import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-node";

const [descriptors, url, caFile, username, passwordFile] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const session = {};

function client(service, { httpVersion = "2", origin = url } = {}) {
  const asABrowser = (next) => (request) => {
    request.header.set("origin", origin);
    request.header.set("sec-fetch-site", "same-origin");
    if (session.cookie) request.header.set("cookie", session.cookie);
    if (session.csrf) request.header.set("x-horcrux-csrf", session.csrf);
    return next(request);
  };
  const transport = createGrpcWebTransport({
    baseUrl: url,
    httpVersion,
    nodeOptions: { ca: readFileSync(caFile) },
    interceptors: [asABrowser],
  });
  return createClient(registry.getService(`horcrux.v1.${service}`), transport);
}

async function refusal(call) {
  try {
    await call;
    return "accepted";
  } catch (error) {
    return Code[ConnectError.from(error).code];
  }
}

const password = readFileSync(passwordFile, "utf8").trim();
const answer = await client("AuthService").signIn(
  { username, password },
  { onHeader: (headers) => (session.cookie = headers.get("set-cookie")?.split(";")[0]) },
);
const withoutCsrf = await refusal(client("NodeService").list({}));
session.csrf = answer.csrfToken;
const otherOrigin = await refusal(client("NodeService", { origin: "https://elsewhere.example" }).list({}));

const nodes = {};
for (const httpVersion of ["1.1", "2"]) {
  const listed = await client("NodeService", { httpVersion }).list({});
  nodes[httpVersion] = listed.nodes.map((node) => node.name);
}

const watched = [];
const ended = new AbortController();
try {
  for await (const { message } of client("WatchService").watch({}, { signal: ended.signal })) {
    watched.push(message.case);
    if (watched.filter((kind) => kind === "changes").length === 3) ended.abort();
  }
} catch (error) {
  if (!ended.signal.aborted) throw error;
}

console.log(
  JSON.stringify({
    tokens_given: answer.tokens !== undefined,
    without_csrf: withoutCsrf,
    other_origin: otherOrigin,
    nodes,
    watched,
  }),
);
process.exit(0);
