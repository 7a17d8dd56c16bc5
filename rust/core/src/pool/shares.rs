// SPDX-License-Identifier: GPL-2.0

//! Shares of a table that all pools draw on.

use crate::addr::PoolId;

/// Whether `pool` may take one entry more where each pool holds what `held` says.
///
/// The first `own` entries of a pool are its own: they are there whatever the others take. Beyond
/// these, all pools together have `shared`, for who comes first; while nobody takes more than this
/// permits, `own * PoolId::MAX + shared` entries are enough for all.
pub(super) fn has_share(
    held: &[usize; PoolId::MAX],
    pool: PoolId,
    own: usize,
    shared: usize,
) -> bool {
    let beyond = |(index, &count): (usize, &usize)| {
        let wanted = count + usize::from(index == pool.index());
        wanted.saturating_sub(own)
    };
    held.iter().enumerate().map(beyond).sum::<usize>() <= shared
}
