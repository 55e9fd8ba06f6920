//! How much of what a runtime says is passed on.

use horcrux_privd::packets::MAX_MESSAGE;
use horcrux_privd::v1::{Container, ContainersAnswer};
use prost::Message as _;

/// The longest id; runtimes' have 64 bytes, names of LXC's containers as many as a file's name.
const MOST_ID: usize = 255;
const MOST_NAME: usize = 512;
const MOST_LABELS: usize = 64;
/// Of a label's name, and of its value.
const MOST_LABEL: usize = 256;
pub(super) const MOST_REASON: usize = 512;

/// What stands where text was cut.
const CUT: &str = "…";

/// None for one whose id can't be that of a cgroup that the agent sees.
pub(super) fn bounded(container: Container) -> Option<Container> {
    let id = container.id;
    if id.is_empty() || id.len() > MOST_ID {
        return None;
    }
    let labels = container.labels.into_iter().filter(|(key, _)| key.len() <= MOST_LABEL);
    Some(Container {
        id,
        name: text(&container.name, MOST_NAME),
        image: text(&container.image, MOST_NAME),
        labels: labels.take(MOST_LABELS).map(|(key, value)| (key, text(&value, MOST_LABEL))).collect(),
        state: container.state,
        health: container.health,
    })
}

/// `text` in at most `most` bytes.
pub(super) fn text(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most.saturating_sub(CUT.len()));
    format!("{}{CUT}", text.get(..end).unwrap_or_default())
}

/// As much as fits a message: first labels go, then containers, which are counted.
pub(super) fn fitting(answer: ContainersAnswer) -> ContainersAnswer {
    fitting_in(answer, MAX_MESSAGE)
}

fn fitting_in(mut answer: ContainersAnswer, most: usize) -> ContainersAnswer {
    if length(&answer) <= most {
        return answer;
    }
    for container in answer.runtimes.iter_mut().flat_map(|runtime| &mut runtime.containers) {
        container.labels.clear();
    }
    // From the longest list, so that one runtime with very many doesn't cost another's.
    while length(&answer) > most {
        let Some(longest) = answer.runtimes.iter_mut().max_by_key(|runtime| runtime.containers.len()) else {
            break;
        };
        if longest.containers.is_empty() {
            break;
        }
        let kept = longest.containers.len() / 2;
        let left_off = longest.containers.len() - kept;
        longest.containers.truncate(kept);
        longest.left_off = longest.left_off.saturating_add(u32::try_from(left_off).unwrap_or(u32::MAX));
    }
    answer
}

/// As the answer's message has it.
fn length(answer: &ContainersAnswer) -> usize {
    /// The field's number, and its length, which is below 2^28.
    const FIELD: usize = 1 + 4;
    FIELD + answer.encoded_len()
}

#[cfg(test)]
mod tests {
    use horcrux_privd::v1::{Answer, RuntimeAnswer, answer as kind};
    use proptest::prelude::*;

    use super::*;

    fn container(id: &str, labels: usize) -> Container {
        let labels = (0..labels).map(|n| (format!("l{n:03}"), "v".repeat(300))).collect();
        Container { id: id.to_owned(), labels, ..Container::default() }
    }

    fn answer(sizes: &[usize], labels: usize) -> ContainersAnswer {
        let runtime = |&size: &usize| RuntimeAnswer {
            containers: (0..size).map(|n| container(&format!("{n:064}"), labels)).collect(),
            ..RuntimeAnswer::default()
        };
        ContainersAnswer { runtimes: sizes.iter().map(runtime).collect() }
    }

    #[test]
    fn labels_are_so_many_and_so_long() {
        let mut long = container("a", 70);
        long.labels.insert("k".repeat(300), String::new());
        let bounded = bounded(long).unwrap();
        assert_eq!(bounded.labels.len(), MOST_LABELS);
        assert!(
            bounded.labels.iter().all(|(key, value)| key.len() <= MOST_LABEL && value.len() <= MOST_LABEL)
        );
        assert!(bounded.labels["l000"].ends_with(CUT));
        assert_eq!(super::bounded(container("", 0)), None);
        assert_eq!(super::bounded(container(&"x".repeat(256), 0)), None);
    }

    #[test]
    fn an_answer_that_is_too_long_loses_labels_first_and_then_its_longest_list() {
        let whole = answer(&[100, 3], 5);
        assert_eq!(fitting(whole.clone()), whole);
        let plain = fitting_in(whole.clone(), 10_000);
        assert_eq!(plain, answer(&[100, 3], 0));
        let less = fitting_in(whole, 3000);
        let counts: Vec<_> = less.runtimes.iter().map(|r| (r.containers.len(), r.left_off)).collect();
        assert_eq!(counts, [(25, 75), (3, 0)]);
    }

    proptest! {
        #[test]
        fn text_is_cut_between_characters(long in ".{0,40}", most in 3_usize..40) {
            let cut = text(&long, most);
            prop_assert!(cut.len() <= most);
            prop_assert!(cut == long || cut.ends_with(CUT));
        }

        #[test]
        fn what_fits_is_as_long_as_it_may_be(sizes in prop::collection::vec(0_usize..40, 0..4), most in 64_usize..4000) {
            let whole = answer(&sizes, 1);
            let fitting = fitting_in(whole, most);
            let message = Answer { answer: Some(kind::Answer::Containers(fitting.clone())) };
            prop_assert!(message.encoded_len() <= most);
            let counted = fitting.runtimes.iter().map(|r| r.containers.len() + usize::try_from(r.left_off).unwrap());
            prop_assert_eq!(counted.collect::<Vec<_>>(), sizes);
        }
    }
}
