// node provider.mjs PORT DIR REDIRECT_URL CLAIMS: an OpenID provider for tests, with the certificate in DIR.
//
// Its own sign-in form takes any password. CLAIMS says where people's names and groups are told: `token` (in the
// identity token too) or `userinfo` (there alone). Who signs in as `alice-too` is another person, whom the provider calls
// by alice's name.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { Provider } from 'oidc-provider';

const [, , port, dir, redirect, claims] = process.argv;
const issuer = `https://localhost:${port}`;
const groups = { alice: ['admins', 'staff'], bob: ['operators'] };
const names = { 'alice-too': 'alice' };
const device = 'urn:ietf:params:oauth:grant-type:device_code';
const client = (id, more) => ({
  client_id: id,
  redirect_uris: [redirect],
  response_types: ['code'],
  grant_types: ['authorization_code', device],
  ...more,
});

const provider = new Provider(issuer, {
  clients: [
    client('horcrux', { client_secret: 's3cret: with+odd/chars%', token_endpoint_auth_method: 'client_secret_basic' }),
    client('horcrux-public', { token_endpoint_auth_method: 'none' }),
  ],
  scopes: ['openid', 'profile', 'groups'],
  claims: { openid: ['sub'], profile: ['name', 'preferred_username'], groups: ['groups'] },
  conformIdTokenClaims: claims === 'userinfo',
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      name: `${id} of the tests`,
      preferred_username: names[id] ?? id,
      groups: groups[id] ?? [],
    }),
  }),
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true } },
  cookies: { keys: ['tests'] },
  ttl: { AccessToken: 600, DeviceCode: 600, IdToken: 600, Session: 600, Interaction: 600, Grant: 600 },
});

const tls = { key: readFileSync(`${dir}/server.key`), cert: readFileSync(`${dir}/server.pem`) };
createServer(tls, provider.callback()).listen(Number(port), '127.0.0.1', () => console.log('ready'));
