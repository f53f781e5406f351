//! What the learner's machine tells about itself: its name and how busy its cores are.

/// The machine's name, for file names.
pub(super) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match name.trim() {
        "" => "localhost".into(),
        name => name.replace(['/', '\\'], "_"),
    }
}

/// Ticks of all cores since the machine started. In a container they are the whole machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTicks {
    busy: u64,
    total: u64,
}

impl CpuTicks {
    /// The ticks now, where the system tells them (Linux).
    pub(super) fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// Reads the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(text: &str) -> Option<Self> {
        let fields = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
        let total: u64 = ticks.iter().sum();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { busy: total - idle, total })
    }

    /// Share of the cores that was busy since `earlier`.
    pub(super) fn busy_since(self, earlier: Self) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total).filter(|&total| total > 0)?;
        Some(self.busy.saturating_sub(earlier.busy) as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_cores_are_all_but_idle_and_waiting_for_disks() {
        let earlier = CpuTicks::parse("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2\n").unwrap();
        let later = CpuTicks::parse("cpu  160 5 60 810 60 0 5 0 7 0\n").unwrap();
        assert_eq!(later.busy_since(earlier), Some(0.8));
        assert_eq!(later.busy_since(later), None);
        assert_eq!(CpuTicks::parse("intr 5"), None);
    }

    #[test]
    fn the_host_has_a_name_that_fits_into_a_file_name() {
        let name = host_name();
        assert!(!name.is_empty() && !name.contains(['/', '\n']));
    }
}
