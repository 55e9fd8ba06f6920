//! `/proc/pressure`.

use std::path::Path;

use horcrux_proto::v1::{Metric, Source};

use crate::host::pressure::{Stall, pressure};
use crate::host::read::{Buffer, Keep, KeptFile, Shape, chain};
use crate::host::readings::Readings;

use super::Problems;

/// Which averages are told: the longer ones move slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Averages {
    Shortest,
    All,
}

/// One line's: the total, and the averages in their order.
struct Line {
    total: Metric,
    averages: [Metric; 3],
}

/// One resource, with its lines `some` and `full`.
const RESOURCES: [(&str, [Line; 2]); 3] = [
    (
        "cpu",
        [
            Line {
                total: Metric::NodePressureCpuSomeTime,
                averages: [
                    Metric::NodePressureCpuSomeAvg10,
                    Metric::NodePressureCpuSomeAvg60,
                    Metric::NodePressureCpuSomeAvg300,
                ],
            },
            Line {
                total: Metric::NodePressureCpuFullTime,
                averages: [
                    Metric::NodePressureCpuFullAvg10,
                    Metric::NodePressureCpuFullAvg60,
                    Metric::NodePressureCpuFullAvg300,
                ],
            },
        ],
    ),
    (
        "memory",
        [
            Line {
                total: Metric::NodePressureMemorySomeTime,
                averages: [
                    Metric::NodePressureMemorySomeAvg10,
                    Metric::NodePressureMemorySomeAvg60,
                    Metric::NodePressureMemorySomeAvg300,
                ],
            },
            Line {
                total: Metric::NodePressureMemoryFullTime,
                averages: [
                    Metric::NodePressureMemoryFullAvg10,
                    Metric::NodePressureMemoryFullAvg60,
                    Metric::NodePressureMemoryFullAvg300,
                ],
            },
        ],
    ),
    (
        "io",
        [
            Line {
                total: Metric::NodePressureIoSomeTime,
                averages: [
                    Metric::NodePressureIoSomeAvg10,
                    Metric::NodePressureIoSomeAvg60,
                    Metric::NodePressureIoSomeAvg300,
                ],
            },
            Line {
                total: Metric::NodePressureIoFullTime,
                averages: [
                    Metric::NodePressureIoFullAvg10,
                    Metric::NodePressureIoFullAvg60,
                    Metric::NodePressureIoFullAvg300,
                ],
            },
        ],
    ),
];

#[derive(Debug)]
pub(super) struct Pressures([KeptFile; RESOURCES.len()]);

impl Pressures {
    pub(super) fn new(dir: &Path) -> Self {
        Self(RESOURCES.map(|(of, _)| KeptFile::new(dir.join(of), Shape::Whole, Keep::Open)))
    }

    pub(super) fn read(
        &mut self,
        averages: Averages,
        buffer: &mut Buffer,
        readings: &mut Readings,
        problems: &mut Problems,
    ) {
        for (file, (_, [some, full])) in self.0.iter_mut().zip(&RESOURCES) {
            match file.parse(buffer, pressure) {
                Ok(pressure) => {
                    emit(readings, some, pressure.some, averages);
                    if let Some(stall) = pressure.full {
                        emit(readings, full, stall, averages);
                    }
                }
                Err(error) if error.is_gone() || error.is_unsupported() => {
                    problems.missing.push(chain(&error));
                }
                Err(error) => problems.failing.push(chain(&error)),
            }
        }
    }
}

fn emit(readings: &mut Readings, line: &Line, stall: Stall, averages: Averages) {
    readings.whole_counter(Source::Proc, line.total, stall.total_ns);
    let told = match averages {
        Averages::Shortest => 1,
        Averages::All => line.averages.len(),
    };
    for (metric, average) in line.averages.iter().zip(stall.averages_percent).take(told) {
        readings.whole_gauge(Source::Proc, *metric, average);
    }
}
