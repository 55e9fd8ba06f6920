// Who is signed in, and the transport that carries it. The session itself is a cookie that no script can read; what a
// script holds is the token that shows that a request comes from this page.

import { Code, ConnectError, createClient, type Client, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { AuthService } from "../gen/horcrux/v1/auth_service_pb";
import { SystemService } from "../gen/horcrux/v1/system_service_pb";
import { WatchService } from "../gen/horcrux/v1/watch_service_pb";

export type Who = { user: string; roles: string[] };

export class Connection {
  private csrf = "";
  readonly auth: Client<typeof AuthService>;
  readonly system: Client<typeof SystemService>;
  readonly watch: Client<typeof WatchService>;

  constructor(baseUrl: string) {
    const withToken: Interceptor = (next) => (request) => {
      if (this.csrf) request.header.set("x-horcrux-csrf", this.csrf);
      return next(request);
    };
    const transport = createGrpcWebTransport({ baseUrl, interceptors: [withToken] });
    this.auth = createClient(AuthService, transport);
    this.system = createClient(SystemService, transport);
    this.watch = createClient(WatchService, transport);
  }

  // The session that the browser still has, if any.
  async resume(): Promise<Who | undefined> {
    try {
      const answer = await this.auth.whoAmI({});
      this.csrf = answer.csrfToken ?? "";
      return answer.session && { user: answer.session.user, roles: answer.roles };
    } catch (error) {
      if (isSignedOut(error)) return undefined;
      throw error;
    }
  }

  async signIn(username: string, password: string): Promise<void> {
    const answer = await this.auth.signIn({ username, password });
    this.csrf = answer.csrfToken ?? "";
  }

  async signOut(): Promise<void> {
    await this.auth.signOut({});
    this.csrf = "";
  }
}

export function isSignedOut(error: unknown): boolean {
  return ConnectError.from(error).code === Code.Unauthenticated;
}

// For people.
export function explained(error: unknown): string {
  const { code, rawMessage } = ConnectError.from(error);
  if (code === Code.Unavailable || code === Code.Unknown) {
    return `The controller does not answer${rawMessage ? `: ${rawMessage}` : ""}.`;
  }
  const text = rawMessage || "it failed";
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;
}
