//! Who may do what, with the real controller, agent and command line client.

mod api_tokens;
mod audit;
mod escalation;
mod existence;
mod explain;
mod grants;
mod node_identity;
mod refiltering;
mod requests;
mod revocation;
mod scene;
mod secrets;
mod sign_in;
