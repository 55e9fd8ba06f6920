//! Who may do what, from sign-in to audit.
//!
//! # How a decision is made
//!
//! A **grant** gives a role to a user, a group or an API token on a [path](path), with or without what lies below it. A
//! **role** is a set of [privileges]. To decide what a principal may do on an object:
//!
//! 1. **A token is intersected with its owner.** It may do what its own grants give *and* its owner may do now. A `full`
//!    token may do what its owner may.
//! 2. **Levels.** The object's path is walked from `/` to the object: `/`, `/vms`, the selectors that pick it
//!    (`/vms?tag=qa`, taken together as one level), `/vms/{uuid}`.
//! 3. **At one level a user's own entries stand in place of groups' entries; several groups add up.**
//! 4. **A deeper level replaces a shallower one**, whether it gives more or less. A grant that doesn't propagate gives
//!    nothing below its path, and still replaces what is above it.
//! 5. **Pools.** An object takes the grants on `/pools` and on each `/pools/{pool}` that it is in, where they propagate,
//!    beside those of its own path.
//! 6. **Deny is sticky.** The role `NoAccess` takes everything away: on its path, and with propagate on all below it and
//!    on a pool's members. Nothing deeper and no pool brings it back. One thing stands against a *group's* denial: an
//!    entry of the user's own, at the same level, that allows.
//! 7. A grant with an end is worth nothing from then on. A disabled user, and a token of theirs, may do nothing.
//! 8. Who comes with a **guest link** may open the consoles of its one VM while its maker holds VmConsole and
//!    PermissionsModify there, and may do nothing else.
//!
//! What follows: the order of grants doesn't matter; adding a denial never adds a privilege; taking propagate away from a
//! grant that allows never adds one; a token never has what its owner lacks.
//!
//! # How a decision is handed on
//!
//! Nobody hands out what they lack on a path, whichever way: a grant, a role, a group, a pool, a tag or a token. Who grants
//! names only subjects that they may see: with SysAudit or UserModify on `/access` everybody, otherwise themselves and their
//! groups. For others the answer is the same whether they exist or not. A grant on a pool needs the pool; on a node, a guest,
//! a storage or a network it may be made before the thing is there. What an API token may read of its owner's tokens and
//! sessions, it reads by UserModify on `/access` alone.
//!
//! [`policy`] holds the facts, [`rights`] what they come to for one principal, [`explain`] says why, [`change`] what a
//! change would do and whether its author may hand it out.

pub mod audit;
pub mod challenges;
pub mod change;
pub mod device;
pub mod explain;
pub mod factors;
pub mod jwt;
pub mod keys;
pub mod link;
pub mod name;
pub mod pace;
pub mod password;
pub mod path;
pub mod places;
pub mod policy;
pub mod principal;
pub mod privileges;
pub mod provided;
pub mod realm;
pub mod registry;
pub mod rights;
pub mod sessions;
pub mod setup;
pub mod signin;
pub mod throttle;
pub mod tokens;
mod touched;
pub mod watched;

#[cfg(test)]
mod reference_tests;
