//! How long stages took, in bounded memory.

use fork_trace_common::stage::STAGES;

use crate::event::{
    span::{Span, by_name},
    summary::StageTimes,
    tally::distribution::Distribution,
    values::Name,
};

/// What was shown of a stage.
#[derive(Clone, Debug, Default)]
struct OfStage {
    total: Distribution,
    /// Its own times; `None` as long as they are the totals, as they are of a stage that has none within.
    own: Option<Distribution>,
    /// Its times off the CPU.
    off_cpu: Distribution,
}

impl OfStage {
    fn add(&mut self, own_ns: u64, total_ns: u64, off_cpu_ns: Option<u64>) {
        if own_ns != total_ns && self.own.is_none() {
            self.own = Some(self.total.clone());
        }
        self.total.add(total_ns);
        if let Some(own) = &mut self.own {
            own.add(own_ns);
        }
        if let Some(off_cpu_ns) = off_cpu_ns {
            self.off_cpu.add(off_cpu_ns);
        }
    }

    fn merge(&mut self, other: &Self) {
        if other.own.is_some() && self.own.is_none() {
            self.own = Some(self.total.clone());
        }
        if let Some(own) = &mut self.own {
            own.merge(other.own.as_ref().unwrap_or(&other.total));
        }
        self.total.merge(&other.total);
        self.off_cpu.merge(&other.off_cpu);
    }
}

/// The times of the stages so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stages {
    /// A place for each row of [`STAGES`], once there is one.
    rows: Vec<Option<Box<OfStage>>>,
}

impl Stages {
    /// Adds the stages of an attempt. Those that are not in this version's table are left out.
    pub(crate) fn add(&mut self, stages: &[Span]) {
        let mut find = by_name(STAGES, |row| row.name);
        for span in stages {
            let Some((own_ns, total_ns)) = span.self_ns.zip(span.dur_ns) else { continue };
            let Some((place, _)) = find(&span.name) else { continue };
            self.rows.resize(STAGES.len(), None);
            if let Some(stage) = self.rows.get_mut(place) {
                stage.get_or_insert_default().add(own_ns, total_ns, span.off_cpu_ns);
            }
        }
    }

    /// Adds all that `other` has.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.rows.resize(self.rows.len().max(other.rows.len()), None);
        for (stage, other) in self.rows.iter_mut().zip(&other.rows) {
            if let Some(other) = other {
                stage.get_or_insert_default().merge(other);
            }
        }
    }

    /// As a summary has them, in the order of the table.
    pub(crate) fn times(&self) -> Vec<StageTimes> {
        let rows = STAGES.iter().zip(&self.rows);
        let times = rows.filter_map(|(row, stage)| {
            let stage = stage.as_ref()?;
            Some(StageTimes {
                name: Name::Borrowed(row.name),
                total: stage.total.percentiles(),
                own: stage.own.as_ref().map(Distribution::percentiles),
                off_cpu: stage.off_cpu.some_percentiles(),
            })
        });
        times.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tally::tests::{fork, span};

    #[test]
    fn two_that_are_merged_are_one_of_all_stages() {
        let nested = span("copy_process", 70).replace("\"dur_ns\":70", "\"dur_ns\":90");
        let spans = [span("copy_process", 50), nested, span("copy_mm", 9)];
        let of = |spans: &[String]| {
            let mut stages = Stages::default();
            for span in spans {
                stages.add(&fork(&format!(r#""total_ns":1,"stages":[{span}]"#)).stages);
            }
            stages
        };
        for split in 0..=spans.len() {
            let (left, right) = spans.split_at(split);
            let mut merged = of(left);
            merged.merge(&of(right));
            assert_eq!(merged.times(), of(&spans).times(), "{split}");
        }
        assert_eq!(Stages::default().times(), []);
    }
}
