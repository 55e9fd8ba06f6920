// How calls travel: gRPC-web to the page's own origin, with a cookie and the proof that the page sent it.
import type { Interceptor, Transport } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

/** `prove` puts into a header what no page of another origin can. */
export function transport(prove: (header: Headers) => void): Transport {
    const proven: Interceptor = (next) => (request) => {
        prove(request.header);
        return next(request);
    };
    return createGrpcWebTransport({ baseUrl: window.location.origin, interceptors: [proven] });
}
