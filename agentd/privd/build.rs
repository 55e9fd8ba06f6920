//! Compiles the messages that the agent and horcrux-privd exchange. Without the rest of the contract, which brings gRPC.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let contract = "../../proto";
    println!("cargo:rerun-if-changed={contract}/horcrux/privd");
    let messages = protox::compile(["horcrux/privd/v1/privd.proto"], [contract])?;
    let mut config = prost_build::Config::new();
    // In the order of their names, so that what is the same is encoded alike.
    config.btree_map(["."]);
    // What is signed has its types in one crate, for those who sign and those who open.
    for message in messages.file.iter().filter(|file| file.name().ends_with("/envelope.proto")) {
        let names = message.message_type.iter().map(|message| message.name());
        for name in names.chain(message.enum_type.iter().map(|values| values.name())) {
            config
                .extern_path(format!(".horcrux.privd.v1.{name}"), format!("::horcrux_envelope::v1::{name}"));
        }
    }
    config.compile_fds(messages)?;
    Ok(())
}
