// The realms as the sign-in page offers them.
import { type Realm, RealmKind } from "../gen/horcrux/v1/auth_service_pb";
import { plain } from "../words/text";

export interface Offer {
    /** Signed in to with a user name and a password. */
    readonly forms: readonly Realm[];
    /** Signed in to elsewhere. */
    readonly providers: readonly Realm[];
    /** The last used one, or the first of the forms. */
    readonly chosen: string;
}

export function offer(realms: readonly Realm[], last: string | undefined): Offer {
    const providers = realms.filter(({ kind }) => kind === RealmKind.OIDC);
    const forms = realms.filter(({ kind }) => kind !== RealmKind.OIDC);
    return { forms, providers, chosen: forms.find(({ name }) => name === last)?.name ?? forms[0]?.name ?? "" };
}

export function title(realm: Realm): string {
    return plain(realm.title) || plain(realm.name);
}

/** `user@realm`: users' names may hold an @ in some realms. */
export function realmOf(user: string): string {
    return user.slice(user.lastIndexOf("@") + 1);
}

export function isLocal(user: string): boolean {
    return realmOf(user) === "local";
}
