//! Compiles the contract, and refuses one in which a method doesn't say what it demands of its caller or a metric
//! doesn't say what it is.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage};

const FILES: [&str; 21] = [
    "horcrux/v1/authz.proto",
    "horcrux/v1/metrics.proto",
    "horcrux/v1/inventory.proto",
    "horcrux/v1/auth_service.proto",
    "horcrux/v1/user_service.proto",
    "horcrux/v1/grant_service.proto",
    "horcrux/v1/pool_service.proto",
    "horcrux/v1/token_service.proto",
    "horcrux/v1/audit_service.proto",
    "horcrux/v1/system_service.proto",
    "horcrux/v1/node_service.proto",
    "horcrux/v1/vm_service.proto",
    "horcrux/v1/container_service.proto",
    "horcrux/v1/console_service.proto",
    "horcrux/v1/guest_link_service.proto",
    "horcrux/v1/recording_service.proto",
    "horcrux/v1/watch_service.proto",
    "horcrux/agent/v1/enrollment.proto",
    "horcrux/agent/v1/link.proto",
    "horcrux/agent/v1/console.proto",
    "google/protobuf/descriptor.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=horcrux");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    // Encoded by protox itself, so that the options, which are extensions, survive.
    let encoded = compiler.encode_file_descriptor_set();
    let pool = DescriptorPool::decode(encoded.as_slice())?;
    std::fs::write(out.join("horcrux.bin"), &encoded)?;
    write_requirements(&pool, &out.join("requirements.rs"))?;
    write_catalogue(&pool, &out.join("catalogue.rs"))?;

    // Maps in the order of their keys, so that what is the same is encoded alike.
    let generated = tonic_prost_build::configure().bytes(".").btree_map(".");
    generated.codec_path("crate::gathered::GatheredCodec").compile_fds(compiler.file_descriptor_set())?;
    tonic_build::manual::Builder::new().build_client(false).compile(&[encoded_watch()]);
    Ok(())
}

/// The server side of WatchService once more, with an answer that is bytes already: what many watchers see is encoded
/// once. On the wire there is no difference.
fn encoded_watch() -> tonic_build::manual::Service {
    let method = |name: &str, route: &str, output: &str, codec: &str| {
        let method = tonic_build::manual::Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::v1::{route}Request"))
            .output_type(output)
            .codec_path(codec);
        if name == "watch" { method.server_streaming().build() } else { method.build() }
    };
    tonic_build::manual::Service::builder()
        .name("WatchService")
        .package("horcrux.v1")
        .method(method("watch", "Watch", "bytes::Bytes", "crate::encoded::EncodedCodec"))
        .method(method("get_recent", "GetRecent", "crate::v1::GetRecentResponse", "tonic_prost::ProstCodec"))
        .build()
}

fn write_requirements(pool: &DescriptorPool, path: &Path) -> Result<(), Box<dyn Error>> {
    let requires = pool.get_extension_by_name("horcrux.v1.requires").ok_or("no requires option")?;
    let mut rows = String::from("&[\n");
    for service in pool.services().filter(|s| s.full_name().starts_with("horcrux.")) {
        for method in service.methods() {
            let name = format!("/{}/{}", service.full_name(), method.name());
            let options = method.options();
            if !options.has_extension(&requires) {
                return Err(format!("{name} has no (horcrux.v1.requires) option: say who may call it").into());
            }
            let options = options.get_extension(&requires);
            let rule = options.as_message().ok_or("requires is not a message")?;
            let caller = caller(rule).ok_or_else(|| format!("{name}: requires names no caller"))?;
            let field = text(rule, "resource_field");
            if !field.is_empty() && method.input().get_field_by_name(&field).is_none() {
                return Err(format!("{name}: its request has no field {field}").into());
            }
            let flag = |name: &str| rule.get_field_by_name(name).and_then(|v| v.as_bool()).unwrap_or(false);
            writeln!(
                rows,
                "    Requirement {{ method: {name:?}, caller: {caller}, resource_field: {field:?}, resource: {:?}, filtered: {}, \
                 mutation: {} }},",
                text(rule, "resource"),
                flag("filtered"),
                flag("mutation"),
            )?;
        }
    }
    rows.push_str("]\n");
    std::fs::write(path, rows)?;
    Ok(())
}

fn caller(rule: &DynamicMessage) -> Option<String> {
    let set = |name: &str| rule.has_field_by_name(name);
    if set("anyone") {
        return Some("Caller::Anyone".into());
    }
    if set("signed_in") {
        return Some("Caller::SignedIn".into());
    }
    if set("session") {
        return Some("Caller::Session".into());
    }
    if set("node") {
        return Some("Caller::Node".into());
    }
    if set("guest") {
        return Some("Caller::Guest".into());
    }
    let number = rule.get_field_by_name("privilege")?.as_enum_number()?;
    let field = rule.descriptor().get_field_by_name("privilege")?;
    let privileges = field.kind().as_enum()?.clone();
    let value = privileges.get_value(number).filter(|_| number != 0)?;
    Some(format!("Caller::Holder(Privilege::{})", variant(value.name(), "PRIVILEGE_")))
}

fn write_catalogue(pool: &DescriptorPool, path: &Path) -> Result<(), Box<dyn Error>> {
    let option = pool.get_extension_by_name("horcrux.v1.metric").ok_or("no metric option")?;
    let metrics = pool.get_enum_by_name("horcrux.v1.Metric").ok_or("no Metric enum")?;
    let mut rows = String::from("&[\n");
    for value in metrics.values().filter(|v| v.number() != 0) {
        let options = value.options();
        if !options.has_extension(&option) {
            return Err(format!("{} has no (horcrux.v1.metric) option", value.name()).into());
        }
        let info = options.get_extension(&option);
        let info = info.as_message().ok_or("metric is not a message")?;
        let name = text(info, "name");
        if value.name() != format!("METRIC_{}", name.to_uppercase()) {
            return Err(format!("{} is called {name}: one of the two is wrong", value.name()).into());
        }
        let named = |field: &str, prefix: &str| named(info, field, prefix);
        let rate_of = match named("rate_of", "METRIC_") {
            Some(of) => format!("Some(Metric::{of})"),
            None => "None".into(),
        };
        writeln!(
            rows,
            "    MetricInfo {{ metric: Metric::{}, name: {name:?}, unit: Unit::{}, kind: Kind::{}, entity: \
             EntityKind::{}, help: {:?}, instance: {:?}, rate_of: {rate_of}, derived: {} }},",
            variant(value.name(), "METRIC_"),
            named("unit", "UNIT_").ok_or_else(|| format!("{name} has no unit"))?,
            named("kind", "KIND_").ok_or_else(|| format!("{name} has no kind"))?,
            named("entity", "ENTITY_KIND_").ok_or_else(|| format!("{name} has no entity"))?,
            text(info, "help"),
            text(info, "instance"),
            info.get_field_by_name("derived").and_then(|v| v.as_bool()).unwrap_or(false),
        )?;
    }
    rows.push_str("]\n");
    std::fs::write(path, rows)?;
    Ok(())
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The variant name of an enum field, or `None` where it is unset or 0.
fn named(message: &DynamicMessage, field: &str, prefix: &str) -> Option<String> {
    let number = message.get_field_by_name(field)?.as_enum_number().filter(|&number| number != 0)?;
    let kind = message.descriptor().get_field_by_name(field)?.kind();
    Some(variant(kind.as_enum()?.get_value(number)?.name(), prefix))
}

/// `METRIC_NODE_LOAD_1M` as prost names it: `NodeLoad1m`.
fn variant(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix)
        .split('_')
        .map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map_or_else(String::new, |first| first.to_string() + &letters.as_str().to_lowercase())
        })
        .collect()
}
