//! Architectures that a filter can tell apart.
//!
//! Contract: an [`Arch`] is one ABI of system calls. The kernel tells a filter the
//! `AUDIT_ARCH_*` value, which x86_64 and x32 share: x32 is bit 30 of the number.
//! Everything here is a constant of the kernel's or of libseccomp's interface.

use crate::syscalls::Column;

/// Bit of the number that marks an x32 call.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

const LITTLE: u32 = 0x4000_0000;
const WIDE: u32 = 0x8000_0000;
const N32: u32 = 0x2000_0000;

/// An ABI of system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the architectures' own")]
pub enum Arch {
    X86,
    X86_64,
    X32,
    Arm,
    Aarch64,
    Riscv64,
    Loongarch64,
    Mips,
    Mips64,
    Mips64N32,
    Mipsel,
    Mipsel64,
    Mipsel64N32,
    Ppc,
    Ppc64,
    Ppc64le,
    S390,
    S390x,
}

impl Arch {
    /// All of them.
    pub const ALL: [Arch; 18] = [
        Arch::X86,
        Arch::X86_64,
        Arch::X32,
        Arch::Arm,
        Arch::Aarch64,
        Arch::Riscv64,
        Arch::Loongarch64,
        Arch::Mips,
        Arch::Mips64,
        Arch::Mips64N32,
        Arch::Mipsel,
        Arch::Mipsel64,
        Arch::Mipsel64N32,
        Arch::Ppc,
        Arch::Ppc64,
        Arch::Ppc64le,
        Arch::S390,
        Arch::S390x,
    ];

    /// The architecture this program was built for.
    pub const fn native() -> Arch {
        cfg_select! {
            all(target_arch = "x86_64", target_pointer_width = "64") => Arch::X86_64,
            target_arch = "x86_64" => Arch::X32,
            target_arch = "x86" => Arch::X86,
            target_arch = "aarch64" => Arch::Aarch64,
            target_arch = "arm" => Arch::Arm,
            target_arch = "riscv64" => Arch::Riscv64,
            target_arch = "loongarch64" => Arch::Loongarch64,
            all(target_arch = "powerpc64", target_endian = "little") => Arch::Ppc64le,
            target_arch = "powerpc64" => Arch::Ppc64,
            target_arch = "powerpc" => Arch::Ppc,
            target_arch = "s390x" => Arch::S390x,
            all(target_arch = "mips64", target_endian = "little") => Arch::Mipsel64,
            target_arch = "mips64" => Arch::Mips64,
            all(target_arch = "mips", target_endian = "little") => Arch::Mipsel,
            target_arch = "mips" => Arch::Mips,
        }
    }

    /// The architecture of a profile's `SCMP_ARCH_*` name.
    pub fn from_name(name: &str) -> Option<Arch> {
        Arch::ALL.into_iter().find(|arch| arch.name() == name)
    }

    /// The name in profiles.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::X86 => "SCMP_ARCH_X86",
            Arch::X86_64 => "SCMP_ARCH_X86_64",
            Arch::X32 => "SCMP_ARCH_X32",
            Arch::Arm => "SCMP_ARCH_ARM",
            Arch::Aarch64 => "SCMP_ARCH_AARCH64",
            Arch::Riscv64 => "SCMP_ARCH_RISCV64",
            Arch::Loongarch64 => "SCMP_ARCH_LOONGARCH64",
            Arch::Mips => "SCMP_ARCH_MIPS",
            Arch::Mips64 => "SCMP_ARCH_MIPS64",
            Arch::Mips64N32 => "SCMP_ARCH_MIPS64N32",
            Arch::Mipsel => "SCMP_ARCH_MIPSEL",
            Arch::Mipsel64 => "SCMP_ARCH_MIPSEL64",
            Arch::Mipsel64N32 => "SCMP_ARCH_MIPSEL64N32",
            Arch::Ppc => "SCMP_ARCH_PPC",
            Arch::Ppc64 => "SCMP_ARCH_PPC64",
            Arch::Ppc64le => "SCMP_ARCH_PPC64LE",
            Arch::S390 => "SCMP_ARCH_S390",
            Arch::S390x => "SCMP_ARCH_S390X",
        }
    }

    /// The `AUDIT_ARCH_*` value that the kernel shows to a filter: the ELF machine
    /// with flags for byte order and width.
    pub const fn audit(self) -> u32 {
        match self {
            Arch::X86 => 3 | LITTLE,
            Arch::X86_64 | Arch::X32 => 62 | WIDE | LITTLE,
            Arch::Arm => 40 | LITTLE,
            Arch::Aarch64 => 183 | WIDE | LITTLE,
            Arch::Riscv64 => 243 | WIDE | LITTLE,
            Arch::Loongarch64 => 258 | WIDE | LITTLE,
            Arch::Mips => 8,
            Arch::Mips64 => 8 | WIDE,
            Arch::Mips64N32 => 8 | WIDE | N32,
            Arch::Mipsel => 8 | LITTLE,
            Arch::Mipsel64 => 8 | WIDE | LITTLE,
            Arch::Mipsel64N32 => 8 | WIDE | LITTLE | N32,
            Arch::Ppc => 20,
            Arch::Ppc64 => 21 | WIDE,
            Arch::Ppc64le => 21 | WIDE | LITTLE,
            Arch::S390 => 22,
            Arch::S390x => 22 | WIDE,
        }
    }

    /// Whether the upper halves of arguments come first in memory.
    pub(crate) const fn big_endian(self) -> bool {
        self.audit() & LITTLE == 0
    }

    /// Whether conditions look at 64 bits of an argument. x32 and n32 are 32-bit
    /// ABIs, and libseccomp compares the lower half alone there.
    pub(crate) const fn wide(self) -> bool {
        self.audit() & WIDE != 0 && !matches!(self, Arch::X32 | Arch::Mips64N32 | Arch::Mipsel64N32)
    }

    /// What the ABI adds to its numbers.
    pub(crate) const fn base(self) -> u32 {
        match self {
            Arch::X32 => X32_BIT,
            Arch::Mips | Arch::Mipsel => 4000,
            Arch::Mips64 | Arch::Mipsel64 => 5000,
            Arch::Mips64N32 | Arch::Mipsel64N32 => 6000,
            _ => 0,
        }
    }

    /// Whether sockets and System V IPC also come through the multiplexers
    /// `socketcall` and `ipc`.
    pub(crate) const fn multiplexes(self) -> bool {
        matches!(
            self,
            Arch::X86
                | Arch::Mips
                | Arch::Mipsel
                | Arch::Ppc
                | Arch::Ppc64
                | Arch::Ppc64le
                | Arch::S390
                | Arch::S390x
        )
    }

    /// Whether call 0 stands for every number that is too large for the
    /// instruction (s390's `svc 0`).
    pub(crate) const fn zero_is_overflow(self) -> bool {
        matches!(self, Arch::S390 | Arch::S390x)
    }

    pub(crate) const fn column(self) -> Column {
        match self {
            Arch::X86 => Column::X86,
            Arch::X86_64 => Column::X86_64,
            Arch::X32 => Column::X32,
            Arch::Arm => Column::Arm,
            Arch::Aarch64 => Column::Aarch64,
            Arch::Riscv64 => Column::Riscv64,
            Arch::Loongarch64 => Column::Loongarch64,
            Arch::Mips | Arch::Mipsel => Column::Mips,
            Arch::Mips64 | Arch::Mipsel64 => Column::Mips64,
            Arch::Mips64N32 | Arch::Mipsel64N32 => Column::Mips64N32,
            Arch::Ppc => Column::Ppc,
            Arch::Ppc64 | Arch::Ppc64le => Column::Ppc64,
            Arch::S390 => Column::S390,
            Arch::S390x => Column::S390x,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_architecture() {
        for arch in Arch::ALL {
            assert_eq!(Arch::from_name(arch.name()), Some(arch));
        }
        assert_eq!(Arch::from_name("SCMP_ARCH_VAX"), None);
    }

    #[test]
    fn audit_values_are_the_kernel_ones() {
        for (arch, audit) in [
            (Arch::X86, 0x4000_0003),
            (Arch::X86_64, 0xc000_003e),
            (Arch::Aarch64, 0xc000_00b7),
            (Arch::Arm, 0x4000_0028),
            (Arch::Riscv64, 0xc000_00f3),
            (Arch::S390x, 0x8000_0016),
            (Arch::Ppc64le, 0xc000_0015),
            (Arch::Mipsel64N32, 0xe000_0008),
        ] {
            assert_eq!(arch.audit(), audit, "{arch:?}");
        }
    }
}
