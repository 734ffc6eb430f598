//! Compiles the proto files without protoc, and keeps their descriptors for reflection.

use std::path::PathBuf;

const FILES: [&str; 5] = [
    "casd/v1/jobs.proto",
    "casd/v1/network.proto",
    "casd/v1/node.proto",
    "casd/v1/objects.proto",
    "casd/v1/trees.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("casd.v1.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().bytes(".casd.v1").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
