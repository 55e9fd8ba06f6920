//! Compiles the envelope and what is in it. Without the rest of the contract, which brings gRPC.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let contract = "..";
    let envelope = "horcrux/privd/v1/envelope.proto";
    println!("cargo:rerun-if-changed={contract}/{envelope}");
    let messages = protox::compile([envelope], [contract])?;
    prost_build::Config::new().compile_fds(messages)?;
    Ok(())
}
