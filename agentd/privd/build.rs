//! Compiles the messages that the agent and horcrux-privd exchange. Without the rest of the contract, which brings gRPC.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let contract = "../../proto";
    println!("cargo:rerun-if-changed={contract}/horcrux/privd");
    let messages = protox::compile(["horcrux/privd/v1/privd.proto"], [contract])?;
    // In the order of their names, so that what is the same is encoded alike.
    prost_build::Config::new().btree_map(["."]).compile_fds(messages)?;
    Ok(())
}
