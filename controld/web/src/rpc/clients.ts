// The services that the page calls.
import { createClient } from "@connectrpc/connect";

import { AuthService } from "../gen/horcrux/v1/auth_service_pb";
import { ConsoleService } from "../gen/horcrux/v1/console_service_pb";
import { GuestLinkService } from "../gen/horcrux/v1/guest_link_service_pb";
import { NodeService } from "../gen/horcrux/v1/node_service_pb";
import { RecordingService } from "../gen/horcrux/v1/recording_service_pb";
import { SystemService } from "../gen/horcrux/v1/system_service_pb";
import { TokenService } from "../gen/horcrux/v1/token_service_pb";
import { WatchService } from "../gen/horcrux/v1/watch_service_pb";
import { transport } from "./transport";

const CSRF_HEADER = "x-horcrux-csrf";

/** Kept in memory only. */
export const proof: { csrf: string | undefined } = { csrf: undefined };

const wire = transport((header) => {
    if (proof.csrf !== undefined) {
        header.set(CSRF_HEADER, proof.csrf);
    }
});

export const auth = createClient(AuthService, wire);
export const consoles = createClient(ConsoleService, wire);
export const guestLinks = createClient(GuestLinkService, wire);
export const nodes = createClient(NodeService, wire);
export const recordings = createClient(RecordingService, wire);
export const system = createClient(SystemService, wire);
export const tokens = createClient(TokenService, wire);
export const watch = createClient(WatchService, wire);

/** For calls with one answer. */
export const UNARY = { timeoutMs: 15_000 };
