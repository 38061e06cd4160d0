//! The operator on all threads.
//!
//! A task is some query tokens against one KV head. Where tasks are too few for the threads (one token, few KV heads), each is cut into
//! ranges of chunks of the context: every chunk gives its triple, and the triples are folded in the order of the context. What a thread
//! computes, and in which order, changes no bit.
use super::{Job, QueryLayout};
use crate::ModelError;
use crate::kv_cache::{KvCache, Pages};
use crate::scratch::Worker;
use crate::transformer::{Pass, Segment};
use fastllm_kernels::attention::{Attend, CHUNK, PAGE, Queries, State, Workspace, attend};
use fastllm_kernels::buffer::{TileMut, tiles_mut};
use fastllm_kernels::pool::Pool;
use fastllm_simd::Cpu;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Query tokens of a task: enough rows to share the reading of keys and values, few enough to share the work.
const TOKENS: usize = 16;
/// Tokens from which on a segment begins with smaller tasks: they are done last, so that threads end together.
const LONG: usize = 64;
/// Query heads of a task at most.
const HEADS: usize = 16;
/// Query rows that a task keeps when it is halved for the sake of more tasks: those of a register tile.
const LEAST_ROWS: usize = 6;
/// Least chunks of a part of a context.
const LEAST_CHUNKS: usize = 2;
/// Most bytes of the triples of a context that threads share.
const MOST_TRIPLES: usize = 16 << 20;

/// Queries of some tokens of a sequence against one KV head.
#[derive(Clone, Copy)]
struct Task {
    segment: Segment,
    /// First token, counted from the start of the batch.
    first: usize,
    tokens: usize,
    /// First query head.
    head: usize,
}

impl Task {
    /// Positions of the first and the last token.
    fn positions(&self) -> (usize, usize) {
        let first = self.segment.position + self.first - self.segment.first;
        (first, first + self.tokens - 1)
    }
}

/// Some chunks of the context of a task, each with its triples.
struct Part<'a> {
    task: Task,
    chunks: Range<usize>,
    states: &'a mut [State],
}

/// Query heads of a task: those that share a KV head, or a part of them where they are many.
fn heads_of_task(group: usize) -> usize {
    if group <= HEADS {
        return group;
    }
    (4..=HEADS).rev().find(|&part| group.is_multiple_of(part)).unwrap_or(group)
}

/// Query tokens of a task, where a token has `columns` tasks of `heads` heads.
fn tokens_of_task(segments: &[Segment], heads: usize, columns: usize, threads: usize) -> usize {
    let tasks = |tokens: usize| columns * segments.iter().map(|s| s.tokens.div_ceil(tokens)).sum::<usize>();
    let mut tokens = TOKENS;
    while threads > 1 && tokens > 1 && tokens / 2 * heads >= LEAST_ROWS && tasks(tokens) < 4 * threads {
        tokens /= 2;
    }
    tokens
}

/// Parts that a context of `chunks` chunks is cut into, for `tasks` such contexts: the fewest that keep nine of ten threads busy.
fn parts_of_context(tasks: usize, chunks: usize, threads: usize) -> usize {
    let busy = |parts: usize| (tasks * parts) as f64 / ((tasks * parts).next_multiple_of(threads)) as f64;
    let most = (chunks / LEAST_CHUNKS).clamp(1, threads);
    let best = (1..=most).max_by(|&a, &b| busy(a).total_cmp(&busy(b)).then(b.cmp(&a))).unwrap_or(1);
    (1..=most).find(|&parts| busy(parts) >= 0.9).unwrap_or(best)
}

/// Where blocks of `tokens` tokens of a segment begin, and where the last ends.
fn cuts(segment: Segment, tokens: usize) -> impl Iterator<Item = usize> {
    let small = if segment.tokens >= LONG && tokens == TOKENS { TOKENS } else { 0 };
    let leading = [TOKENS / 4, TOKENS / 2].into_iter().take_while(move |&at| at < small);
    let rest = (small..segment.tokens).step_by(tokens).skip_while(|&at| at == 0);
    leading.chain(rest).chain([segment.tokens]).map(move |at| segment.first + at)
}

/// From `scratch.q` and the cache to `scratch.attended`, `[tokens, heads * dim_v]`.
pub fn operate(pass: &mut Pass<'_>, job: &Job<'_>, layout: QueryLayout) -> Result<(), ModelError> {
    let config = job.config;
    let (pool, threads) = (pass.worker.pool, pass.worker.pool.threads());
    let group = config.heads / config.kv_heads;
    let heads = heads_of_task(group);
    let columns = config.heads / heads;
    let out_stride = (config.heads * config.dim_v).next_multiple_of(16);
    let s = &mut *pass.scratch;
    s.attended.resize(pass.tokens * out_stride);
    let tokens = tokens_of_task(pass.segments, heads, columns, threads);
    let (mut borders, mut tasks) = (vec![0], Vec::new());
    for &segment in pass.segments {
        let mut first = segment.first;
        for end in cuts(segment, tokens) {
            borders.push(end);
            tasks.extend((0..config.heads).step_by(heads).map(|head| Task { segment, first, tokens: end - first, head }));
            first = end;
        }
    }
    let tiles = tiles_mut(&mut s.attended, out_stride, &borders, heads * config.dim_v, columns);
    let mut tasks: Vec<(Task, TileMut<'_, f32>)> = tasks.into_iter().zip(tiles).collect();
    let work = |task: &Task| job.attention.chunks(task.positions().0, task.positions().1).len() * task.tokens;
    // The longest first, so that threads end together.
    tasks.sort_by_key(|(task, _)| std::cmp::Reverse(work(task)));
    let worker = &pass.worker;
    let operator =
        Operator { job, layout, heads, group, kv: pass.kv, cpu: worker.cpu, pool, cancel: worker.cancel, q: &s.q, workers: &s.workers };
    let longest = tasks.iter().map(|(task, _)| operator.chunks(task).len()).max().unwrap_or(0);
    let parts = parts_of_context(tasks.len(), longest, threads);
    if parts > 1 && operator.bytes_of_triples(&tasks) <= MOST_TRIPLES {
        operator.share(&mut tasks, &mut s.chunks, parts);
    } else {
        operator.whole(&mut tasks);
    }
    pass.worker.check()
}

struct Operator<'a> {
    job: &'a Job<'a>,
    layout: QueryLayout,
    /// Query heads of a task.
    heads: usize,
    /// Query heads for each KV head.
    group: usize,
    kv: &'a KvCache,
    cpu: Cpu,
    pool: &'a Pool,
    cancel: &'a AtomicBool,
    q: &'a [f32],
    workers: &'a [Mutex<Worker>],
}

impl Operator<'_> {
    fn chunks(&self, task: &Task) -> Range<usize> {
        let (first, last) = task.positions();
        self.job.attention.chunks(first, last)
    }

    fn bytes_of_triples(&self, tasks: &[(Task, TileMut<'_, f32>)]) -> usize {
        let row = size_of::<f32>() * (self.job.config.dim_v + 2);
        tasks.iter().map(|(task, _)| self.chunks(task).len() * task.tokens * self.heads * row).sum()
    }

    /// The pages with `chunks` that the task sees, at most `most` of them.
    fn pages(&self, task: &Task, chunks: &Range<usize>, most: usize) -> Pages<'_> {
        let (first, last) = task.positions();
        let start = self.job.attention.first_page(first).max(chunks.start * CHUNK / PAGE);
        let end = (last / PAGE + 1).min(chunks.end * CHUNK / PAGE).min(start.saturating_add(most));
        self.kv.pages(task.segment.sequence, self.job.pages, task.head / self.group, start..end)
    }

    /// What a thread reads first of a task.
    fn beginning(&self, task: Option<(Task, usize)>) -> Vec<&[u8]> {
        task.map_or(Vec::new(), |(task, chunk)| self.pages(&task, &(chunk..chunk + 1), CHUNK / PAGE).pages)
    }

    fn queries(&self, task: &Task, queries: &mut Queries) {
        queries.clear();
        let first = task.positions().0;
        for t in 0..task.tokens {
            for head in task.head..task.head + self.heads {
                let q = &self.q[(task.first + t) * self.layout.token + head * self.layout.head..][..self.job.config.dim_k];
                queries.push(self.cpu, self.job.attention, q, first + t);
            }
        }
    }

    fn attend(
        &self,
        (queries, work): (&Queries, &mut Workspace),
        table: &Pages<'_>,
        after: &[&[u8]],
        chunks: Range<usize>,
        state: &mut State,
    ) {
        state.reset(self.job.attention, queries.len());
        let (rows, attention) = (0..queries.len(), self.job.attention);
        attend(self.cpu, Attend { attention, pages: &table.pages, first_page: table.first, after, queries, rows, chunks, state, work });
    }

    fn finish(&self, task: &Task, state: &State, out: &mut TileMut<'_, f32>) {
        for t in 0..task.tokens {
            for (h, out) in out.row_mut(t).chunks_exact_mut(self.job.config.dim_v).enumerate() {
                state.finish(self.cpu, t * self.heads + h, self.job.sinks.map(|sinks| sinks[task.head + h]), out);
            }
        }
    }

    /// Every task by one thread.
    fn whole(&self, tasks: &mut [(Task, TileMut<'_, f32>)]) {
        let order: Vec<(Task, usize)> = tasks.iter().map(|(task, _)| (*task, self.chunks(task).start)).collect();
        self.pool.for_each_worker(tasks, |i, thread, (task, out)| {
            if self.cancel.load(Ordering::Relaxed) {
                return;
            }
            let Worker { work, queries, state } = &mut *self.workers[thread].lock().unwrap_or_else(PoisonError::into_inner);
            self.queries(task, queries);
            let chunks = self.chunks(task);
            // Tasks are claimed in turns: this is the likely next one of the thread.
            let after = self.beginning(order.get(i + self.pool.threads()).copied());
            self.attend((queries, work), &self.pages(task, &chunks, usize::MAX), &after, chunks, state);
            self.finish(task, state, out);
        });
    }

    /// Every context by several threads, in `parts` parts if it is long enough.
    fn share(&self, tasks: &mut [(Task, TileMut<'_, f32>)], states: &mut Vec<State>, parts: usize) {
        let count = tasks.iter().map(|(task, _)| self.chunks(task).len()).sum();
        if states.len() < count {
            states.resize_with(count, State::default);
        }
        let (mut list, mut rest) = (Vec::new(), &mut states[..count]);
        for (task, _) in &*tasks {
            let (chunks, mut states);
            (chunks, (states, rest)) = (self.chunks(task), rest.split_at_mut(self.chunks(task).len()));
            let parts = parts.min(chunks.len() / LEAST_CHUNKS).max(1);
            for part in 0..parts {
                let range = chunks.start + part * chunks.len() / parts..chunks.start + (part + 1) * chunks.len() / parts;
                let own;
                (own, states) = states.split_at_mut(range.len());
                list.push(Part { task: *task, chunks: range, states: own });
            }
        }
        let order: Vec<(Task, usize)> = list.iter().map(|part| (part.task, part.chunks.start)).collect();
        self.pool.for_each_worker(&mut list, |i, thread, part| {
            if !self.cancel.load(Ordering::Relaxed) {
                self.part(part, &self.beginning(order.get(i + self.pool.threads()).copied()), thread);
            }
        });
        if self.cancel.load(Ordering::Relaxed) {
            return;
        }
        let mut firsts = vec![0];
        for (task, _) in &*tasks {
            firsts.push(firsts[firsts.len() - 1] + self.chunks(task).len());
        }
        let states = &*states;
        self.pool.for_each_worker(tasks, |i, thread, (task, out)| {
            let Worker { state, .. } = &mut *self.workers[thread].lock().unwrap_or_else(PoisonError::into_inner);
            state.reset(self.job.attention, task.tokens * self.heads);
            for chunk in &states[firsts[i]..firsts[i + 1]] {
                state.fold(self.cpu, chunk);
            }
            self.finish(task, state, out);
        });
    }

    /// The triples of the chunks of a part.
    fn part(&self, part: &mut Part<'_>, after: &[&[u8]], thread: usize) {
        let Worker { work, queries, .. } = &mut *self.workers[thread].lock().unwrap_or_else(PoisonError::into_inner);
        self.queries(&part.task, queries);
        let table = self.pages(&part.task, &part.chunks, usize::MAX);
        for (chunk, state) in part.chunks.clone().zip(&mut *part.states) {
            let next = ((chunk + 1) * CHUNK / PAGE).saturating_sub(table.first).min(table.pages.len());
            let after = if chunk + 1 < part.chunks.end { &table.pages[next..(next + CHUNK / PAGE).min(table.pages.len())] } else { after };
            self.attend((queries, work), &table, after, chunk..chunk + 1, state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::SequenceId;

    fn segment(tokens: usize) -> Segment {
        Segment { sequence: SequenceId(0), first: 7, tokens, position: 100 }
    }

    #[test]
    fn cuts_end_with_the_segment_and_begin_small_where_it_is_long() {
        let of = |tokens, block| cuts(segment(tokens), block).map(|at| at - 7).collect::<Vec<_>>();
        assert_eq!(of(1, 16), [1]);
        assert_eq!(of(16, 16), [16]);
        assert_eq!(of(40, 16), [16, 32, 40]);
        assert_eq!(of(3, 1), [1, 2, 3]);
        assert_eq!(of(64, 16), [4, 8, 16, 32, 48, 64]);
        assert_eq!(of(64, 8), [8, 16, 24, 32, 40, 48, 56, 64]);
    }

    #[test]
    fn contexts_are_shared_where_threads_would_wait() {
        // Eight KV heads are enough for 1, 2, 4 and 8 threads; not for 3, nor for 16.
        assert_eq!([1, 2, 3, 4, 8, 16].map(|threads| parts_of_context(8, 64, threads)), [1, 1, 3, 1, 1, 2]);
        // One KV head, many threads; and a context that is too short to be shared.
        assert_eq!((parts_of_context(1, 64, 16), parts_of_context(1, 5, 16), parts_of_context(1, 1, 16)), (15, 2, 1));
    }

    #[test]
    fn few_tasks_have_fewer_tokens() {
        assert_eq!(tokens_of_task(&[segment(16)], 4, 8, 2), 16);
        assert_eq!(tokens_of_task(&[segment(16)], 6, 2, 2), 4);
        assert_eq!(tokens_of_task(&[segment(16)], 6, 2, 1), 16);
        assert_eq!(tokens_of_task(&[segment(512)], 4, 8, 2), 16);
    }
}
