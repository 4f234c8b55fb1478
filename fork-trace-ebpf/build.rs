//! Tells the sources which machine the object is for, as aya-ebpf does for its own.

fn main() -> aya_build::Result<()> {
    aya_build::emit_bpf_target_arch_cfg()
}
