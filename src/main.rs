fn main() -> std::process::ExitCode {
    qubix_worker::main()
}
