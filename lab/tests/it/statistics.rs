//! Expected figures are those that `scripts/lab_statistics.py` printed (scipy 1.x, statsmodels 0.14).

use std::slice::from_ref;

use reckon_lab::stats::{
    Interval, band, bootstrap_difference, bootstrap_mean, mcnemar, mcnemar_exact, moving_mean, pass_at_k, t_975, wilson,
};

fn near(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found} is not {expected}");
}

#[test]
fn wilsons_interval_is_that_of_statsmodels() {
    for (successes, trials, low, high) in [
        (0, 10, 0.000000000000, 0.277532799863),
        (10, 10, 0.722467200137, 1.000000000000),
        (7, 10, 0.396778147461, 0.892208732594),
        (69, 300, 0.185971818073, 0.280855386388),
        (237, 300, 0.740388877423, 0.832278199267),
        (1, 1000, 0.000176546371, 0.005642558598),
        (5000, 10000, 0.490202061815, 0.509797938185),
    ] {
        let found = wilson(successes, trials);
        near(found.low, low, 1e-11, "low");
        near(found.high, high, 1e-11, "high");
    }
    assert_eq!(wilson(0, 0), Interval { low: 0.0, high: 1.0 });
}

#[test]
fn mcnemars_test_is_that_of_statsmodels() {
    for (only_first, only_second, p) in [
        (0, 0, 1.0),
        (0, 5, 6.250000000000e-02),
        (3, 4, 1.0),
        (10, 25, 1.667384780012e-02),
        (3, 171, 7.334651031773e-47),
        (40, 45, 6.646454904132e-01),
        (600, 700, 6.015793861045e-03),
        (1200, 1100, 3.896685268382e-02),
    ] {
        near(mcnemar_exact(only_first, only_second) / p, 1.0, 1e-9, "p");
        assert_eq!(mcnemar_exact(only_first, only_second), mcnemar_exact(only_second, only_first), "two-sided");
    }
    let found =
        mcnemar(&[Some(true), Some(false), None, Some(false)], &[Some(false), Some(true), Some(true), Some(true)]);
    assert_eq!((found.problems, found.only_first, found.only_second), (3, 1, 2), "what was not judged counts nowhere");
}

#[test]
fn bands_of_seeds_are_students() {
    for (degrees, quantile) in [
        (1, 12.70620474),
        (2, 4.30265273),
        (5, 2.57058184),
        (29, 2.04522964),
        (30, 2.04227246),
        (31, 2.03951345),
        (60, 2.00029782),
        (200, 1.97189622),
        (1000, 1.96233908),
    ] {
        near(t_975(degrees), quantile, 2e-5, "t");
    }
    for (values, mean, low, high) in [
        (&[0.79, 0.78, 0.81][..], 0.793333333333, 0.7553875030, 0.8312791637),
        (&[1.0, 2.0], 1.5, -4.8531023681, 7.8531023681),
        (&[0.5, 0.5, 0.5, 0.7], 0.55, 0.3908776847, 0.7091223153),
    ] {
        let found = band(values).unwrap();
        near(found.mean, mean, 1e-11, "mean");
        let interval = found.interval.unwrap();
        near(interval.low, low, 1e-7, "low");
        near(interval.high, high, 1e-7, "high");
    }
    let one = band(&[0.5, f64::NAN]).unwrap();
    assert_eq!((one.mean, one.min, one.max, one.interval), (0.5, 0.5, 0.5, None));
    assert_eq!(band(&[f64::NAN]), None);
}

#[test]
fn pass_at_k_is_the_share_of_all_choices_that_hold_a_right_one() {
    for (n, correct, k, expected) in [
        (5, 2, 1, 0.4),
        (5, 2, 2, 0.7),
        (5, 2, 3, 0.9),
        (5, 2, 4, 1.0),
        (8, 1, 4, 0.5),
        (8, 0, 3, 0.0),
        (10, 10, 1, 1.0),
        (12, 3, 6, 0.909090909091),
    ] {
        near(pass_at_k(n, correct, k), expected, 1e-11, "pass@k");
    }
    // No factorial of 1,000 is taken on the way.
    near(pass_at_k(1000, 1, 128), 0.128, 1e-12, "of many");
}

#[test]
fn a_bootstrap_has_the_ends_that_scipy_and_numpy_find_and_repeats_itself() {
    let one: Vec<f64> = (0..100).map(|problem| f64::from(u8::from(problem < 30))).collect();
    let found = bootstrap_mean(from_ref(&one), 17).unwrap();
    near(found.low, 0.21, 0.015, "low of one seed");
    near(found.high, 0.39, 0.015, "high of one seed");
    assert_eq!(bootstrap_mean(from_ref(&one), 17), Some(found));
    assert_ne!(bootstrap_mean(from_ref(&one), 18), Some(found));
    let seeds: Vec<Vec<f64>> =
        (0..3).map(|s| (0..100).map(|p| f64::from(u8::from((p * 7 + s * 3) % 10 < 3 + 2 * s))).collect()).collect();
    let crossed = bootstrap_mean(&seeds, 17).unwrap();
    near(crossed.low, 0.30, 0.02, "low over seeds");
    near(crossed.high, 0.70, 0.02, "high over seeds");
    // The same problems fall in both: nothing differs.
    assert_eq!(bootstrap_difference(from_ref(&one), from_ref(&one), 17), Some(Interval { low: 0.0, high: 0.0 }));
    let none_judged = vec![f64::NAN; 5];
    assert_eq!(bootstrap_mean(&[none_judged], 17), None);
    assert_eq!(bootstrap_mean(&[], 17), None);
}

#[test]
fn a_moving_mean_leaves_out_what_is_no_number() {
    let found = moving_mean(&[1.0, 3.0, f64::NAN, 5.0], 2);
    assert_eq!(found, [1.0, 2.0, 3.0, 5.0]);
}
