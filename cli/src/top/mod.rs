//! x
use crate::{App, failure::Failure};
pub async fn run(_app: &App) -> Result<(), Failure> {
    Ok(())
}
