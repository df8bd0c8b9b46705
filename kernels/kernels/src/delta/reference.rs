//! Reference for tests: derivatives of polynomials fitted in f64, separately for each frame.

/// Returns the derivative of order `order` of a polynomial of that degree, fitted to the nine frames around each frame,
/// and at both ends to the outermost nine frames.
pub(crate) fn delta(rows: &[Vec<f64>], order: usize) -> Vec<Vec<f64>> {
    let factorial: usize = (1..=order).product();
    let mut deltas = Vec::with_capacity(rows.len());
    for row in rows {
        let mut derivatives = Vec::with_capacity(row.len());
        for t in 0..row.len() {
            let start = t.saturating_sub(4).min(row.len() - 9);
            let coefficients = fit(&row[start..start + 9], order);
            derivatives.push(coefficients[order] * factorial as f64);
        }
        deltas.push(derivatives);
    }
    deltas
}

/// Returns the coefficients of the least-squares polynomial through (0, y0), (1, y1) …, by the normal equations.
#[allow(clippy::needless_range_loop)] // indices as in the equations
fn fit(ys: &[f64], degree: usize) -> Vec<f64> {
    let size = degree + 1;
    let mut system = vec![vec![0.0; size + 1]; size];
    for (x, y) in ys.iter().enumerate() {
        for row in 0..size {
            for column in 0..size {
                system[row][column] += (x as f64).powi((row + column) as i32);
            }
            system[row][size] += y * (x as f64).powi(row as i32);
        }
    }

    // Gauss-Jordan elimination: afterwards each pivot is the only entry of its column.
    for pivot in 0..size {
        for row in (0..size).filter(|row| *row != pivot) {
            let factor = system[row][pivot] / system[pivot][pivot];
            for column in 0..=size {
                system[row][column] -= factor * system[pivot][column];
            }
        }
    }
    (0..size)
        .map(|row| system[row][size] / system[row][row])
        .collect()
}
