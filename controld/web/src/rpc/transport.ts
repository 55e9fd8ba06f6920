// How calls travel: gRPC-web to the page's own origin, with the session's cookie and its proof that the page sent it.
import type { Interceptor, Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

const CSRF_HEADER = "x-horcrux-csrf";

/** Kept in memory only. */
export interface Proof {
    csrf: string | undefined;
}

export function transport(proof: Proof): Transport {
    const prove: Interceptor = (next) => (request) => {
        if (proof.csrf !== undefined) {
            request.header.set(CSRF_HEADER, proof.csrf);
        }
        return next(request);
    };
    return createGrpcWebTransport({ baseUrl: window.location.origin, interceptors: [prove] });
}
