//! The page is embedded where it was built; without it the controller still builds, and says so when asked for it.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=web/dist");
    println!("cargo:rerun-if-changed=migrations");
    std::fs::create_dir_all("web/dist")
}
