//! Consoles: tickets, who sees what, and each way in which they end; of VMs that a test plays, and of real ones.

mod endings;
mod guest_page;
mod guests;
mod page;
mod real;
mod real_spice;
mod recording;
mod replay;
mod scene;
mod spice;
mod stalled;
mod tickets;
mod viewers;
