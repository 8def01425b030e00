//! The worker of a token by itself, for this package's tests. The program `bulkhead` has it as a hidden subcommand.

fn main() -> std::io::Result<()> {
    keys::pkcs11::worker::run()
}
