// node parrot.mjs PORT DIR HEX: over TLS, says the same to whoever says something.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:tls';

const [, , port, dir, hex] = process.argv;
const tls = { key: readFileSync(`${dir}/server.key`), cert: readFileSync(`${dir}/server.pem`) };
const server = createServer(tls, (socket) => {
  socket.on('error', () => {});
  socket.on('data', () => socket.write(Buffer.from(hex, 'hex')));
});
server.listen(Number(port), '127.0.0.1');
