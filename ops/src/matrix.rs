//! A matrix to be written, of which several threads may hold parts: some rows, or some columns of all rows.

use std::marker::PhantomData;
use std::ops::Range;

/// Element `(m, n)` lies at `m * row + n`; `width` columns of each row are this one's.
#[derive(Debug)]
pub(crate) struct MatrixMut<'a> {
    values: *mut f32,
    /// Values from the first to the last that may be reached.
    len: usize,
    row: usize,
    width: usize,
    held: PhantomData<&'a mut [f32]>,
}

#[allow(unsafe_code)]
// SAFETY: it is a `&mut [f32]` with gaps, and no two hold the same value: they are made of one by the splits below.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// All of `values`, in rows of `row`.
    pub(crate) fn new(values: &'a mut [f32], row: usize) -> Self {
        Self { values: values.as_mut_ptr(), len: values.len(), row, width: row, held: PhantomData }
    }

    /// Values between the beginnings of two rows.
    pub(crate) fn row(&self) -> usize {
        self.row
    }

    /// The same, held by the result as long as that lives.
    pub(crate) fn reborrow(&mut self) -> MatrixMut<'_> {
        MatrixMut { held: PhantomData, ..*self }
    }

    /// Panics unless `(m, n)` values lie in it.
    pub(crate) fn assert_holds(&self, m: usize, n: usize) {
        if m > 0 && n > 0 {
            let needed = (m - 1) * self.row + n;
            assert!(self.len >= needed && n <= self.width, "a matrix holds {} values, not {needed}", self.len);
        }
    }

    /// The columns `columns` of row `m`.
    #[inline(always)]
    pub(crate) fn part(&mut self, m: usize, columns: Range<usize>) -> &mut [f32] {
        let start = m * self.row + columns.start;
        assert!(columns.start <= columns.end && columns.end <= self.width && start + columns.len() <= self.len);
        #[allow(unsafe_code)]
        // SAFETY: the values lie in the slice that the matrix was made of, in columns that are this one's alone.
        unsafe {
            std::slice::from_raw_parts_mut(self.values.add(start), columns.len())
        }
    }

    /// Where row `m` begins, `column` columns on, for blocks of `(height, width)` values that are written otherwise.
    pub(crate) fn block(&mut self, m: usize, column: usize, height: usize, width: usize) -> *mut f32 {
        assert!(height > 0 && column + width <= self.width, "{width} columns from {column} on, of {}", self.width);
        let start = m * self.row + column;
        assert!(start + (height - 1) * self.row + width <= self.len, "{height} rows from {m} on");
        self.values.wrapping_add(start)
    }

    /// The rows before `m`, and the others.
    pub(crate) fn split_rows(self, m: usize) -> (Self, Self) {
        let at = (m * self.row).min(self.len);
        let rest = Self { values: self.values.wrapping_add(at), len: self.len - at, ..self };
        (Self { len: at, ..self }, rest)
    }

    /// The columns before `column`, and the others.
    pub(crate) fn split_columns(self, column: usize) -> (Self, Self) {
        let at = column.min(self.width).min(self.len);
        let rest = Self { values: self.values.wrapping_add(at), len: self.len - at, width: self.width - at, ..self };
        (Self { width: at, ..self }, rest)
    }

    /// Its rows up to `m`, `height` at a time; each part with the row that it begins at.
    pub(crate) fn rows(self, m: usize, height: usize) -> impl Iterator<Item = (usize, MatrixMut<'a>)> {
        let mut rest = Some(self);
        (0..m).step_by(height.max(1)).filter_map(move |first| {
            let (part, other) = rest.take()?.split_rows(height);
            rest = Some(other);
            Some((first, part))
        })
    }

    /// Its columns, `width` at a time, the last ones fewer; each with the column that it begins at.
    pub(crate) fn columns(self, width: usize) -> impl Iterator<Item = (usize, MatrixMut<'a>)> {
        let (whole, mut rest) = (self.width, Some(self));
        (0..whole).step_by(width.max(1)).filter_map(move |first| {
            let (part, other) = rest.take()?.split_columns(width);
            rest = Some(other);
            Some((first, part))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_together_the_whole() {
        let mut values = vec![0f32; 4 * 10];
        let (top, bottom) = MatrixMut::new(&mut values, 10).split_rows(1);
        for (rows, matrix) in [(1, top), (3, bottom)] {
            for (first, mut columns) in matrix.columns(4) {
                columns.assert_holds(rows, 4.min(10 - first));
                for m in 0..rows {
                    columns
                        .part(m, 0..4.min(10 - first))
                        .iter_mut()
                        .enumerate()
                        .for_each(|(n, v)| *v += (first + n) as f32);
                }
            }
        }
        assert!(values.iter().enumerate().all(|(i, &value)| value == (i % 10) as f32), "{values:?}");
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn another_ones_columns_cannot_be_reached() {
        let mut values = vec![0f32; 20];
        let (mut left, _right) = MatrixMut::new(&mut values, 10).split_columns(4);
        left.part(0, 3..5);
    }
}
