//! Times of day: `3:30 pm`, `3:30 p.m.`, `15:30`.

/// Minutes of half a day.
const HALF_DAY: u32 = 720;

/// A time of day, in minutes from midnight; where neither half is named, it may be in both.
struct Time {
    minutes: u32,
    half: Option<bool>,
}

impl Time {
    /// Reads a text in the form of [`super::text::plain`].
    fn read(plain: &str) -> Option<Self> {
        let after_noon = [("pm", true), ("am", false)].into_iter().find(|(suffix, _)| plain.ends_with(suffix));
        let digits = after_noon.map_or(plain, |(suffix, _)| &plain[..plain.len() - suffix.len()]);
        let (hour, minute) = digits.split_once(':').unwrap_or((digits, "00"));
        let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.len() <= 2 && !text.starts_with('+'));
        let (hour, minute) = (number(hour)?, number(minute).filter(|_| minute.len() == 2)?);
        if minute > 59 || hour > 23 || (after_noon.is_some() && !(1..=12).contains(&hour)) {
            return None;
        }
        let half = after_noon.map(|(_, half)| half).or((hour > 12 || hour == 0).then_some(hour > 12));
        let minutes = 60 * hour + minute;
        Some(match half {
            None => Self { minutes, half },
            Some(afternoon) => Self { minutes: minutes % HALF_DAY + if afternoon { HALF_DAY } else { 0 }, half },
        })
    }
}

/// Whether two texts, both plain, are the same time; `None` where neither names a half of the day.
pub(crate) fn same(a: &str, b: &str) -> Option<bool> {
    if ![a, b].iter().any(|text| text.ends_with("am") || text.ends_with("pm")) {
        return None;
    }
    let (a, b) = (Time::read(a)?, Time::read(b)?);
    let halves = a.half.is_none() || b.half.is_none() || a.half == b.half;
    Some(halves && a.minutes % HALF_DAY == b.minutes % HALF_DAY)
}
