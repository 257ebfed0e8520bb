// The output head on a CPU: logits live in the cache of a core and nowhere else (`nll` keeps exponentials of some
// hundred rows). head_loops.py builds and calls this; head.py has the same in torch.
//
// Shapes: M rows in n = ceil(M / T) tiles, h hidden, V vocabulary. X is float or bf16; products of X are summed in
// float. Logits are made transposed, (vocabulary, rows): then the weight is the left side of their product as it lies,
// a row's sums need no sums across lanes, and what they become is the left side of the weight's gradient as it lies.
// Which thread does what changes no sum: partial sums belong to a place, and are added in the order of places.
#include "lanes.h"

namespace {

constexpr int64_t PART = 128;      // of the vocabulary: logits of a product, with 64 rows 32 KiB
constexpr int64_t SPAN = 512;      // of the vocabulary: what is made before it is multiplied with the weight and hidden
constexpr int64_t GROUP = 4;       // tiles of rows whose products for the weight's gradient are one
// From a row to the next, of what products read many rows of: powers of two would share a few places of the cache.
constexpr int64_t ACROSS = GROUP * T + 32, ALONG = SPAN + 32;
constexpr int64_t SEGMENT = 2048;  // of the vocabulary: what a thread goes through with a tile, in the forward pass

struct Call {
    int64_t rows, size, vocabulary;  // M, h, V
    const void *hidden, *weight;     // (M, h) and (V, h) of X
    const int64_t* targets;          // (M,)
    float sharpness;                 // z = sharpness * logits
    int with_entropy;
    Product product;
    Release release;
    int64_t threads;
    int64_t tiles() const { return (rows + T - 1) / T; }
    int64_t real(int64_t tile) const { return std::min(T, rows - tile * T); }
};

// The transposed logits of a tile of rows with PART of the vocabulary, or what is left of it: (count, T)
template <class X>
void logits(const Call& c, int64_t first, int64_t count, const X* rows_across, float* out) {
    c.product(count, T, c.size, c.size, T, T, false, (const X*)c.weight + first * c.size, rows_across, out, PAIRS<X>);
}

// Calls use(row, place) for the rows of a tile whose target lies in first .. first + count.
template <class F> void owners(const Call& c, int64_t tile, int64_t first, int64_t count, F use) {
    const int64_t* targets = c.targets + tile * T;
    for (int64_t j = 0, real = c.real(tile); j < real; j++)
        if (uint64_t(targets[j] - first) < uint64_t(count)) use(j, targets[j] - first);
}

// Of a tile of rows and a segment: the greatest z / ln 2, and of d = z / ln 2 - it the sums of 2^d and of 2^d d.
struct Sums {
    float most[T], total[T], moment[T];
};
constexpr float NOTHING = -1e30f;  // less than any; finite, so that it can be subtracted

template <class X>
void forward_segment(const Call& c, int64_t tile, int64_t begin, int64_t end, const X* rows_across, Sums& sums,
                     float* own, float* z) {
    const __m512 scale = _mm512_set1_ps(c.sharpness * LOG2E);
    std::fill_n(sums.most, T, NOTHING);
    std::fill_n(sums.total, T, 0.0f);
    std::fill_n(sums.moment, T, 0.0f);
    for (int64_t first = begin; first < end; first += PART) {
        const int64_t count = std::min(PART, end - first);
        logits(c, first, count, rows_across, z);
        for (int64_t b = 0; b < T; b += W) {
            const __m512 before = load(sums.most + b);
            __m512 top = load(z + b);
            for (int64_t v = 1; v < count; v++) top = _mm512_max_ps(top, load(z + v * T + b));
            top = _mm512_max_ps(before, _mm512_mul_ps(top, scale));
            const __m512 lower = _mm512_sub_ps(before, top), shrink = power<float>(lower), old = load(sums.total + b);
            __m512 total = _mm512_mul_ps(old, shrink);
            __m512 moment = _mm512_mul_ps(_mm512_fmadd_ps(old, lower, load(sums.moment + b)), shrink);
            for (int64_t v = 0; v < count; v++) {
                const __m512 d = _mm512_fmsub_ps(load(z + v * T + b), scale, top), p = power<float>(d);
                total = _mm512_add_ps(total, p);
                if (c.with_entropy) moment = _mm512_fmadd_ps(p, d, moment);
            }
            store(sums.most + b, top);
            store(sums.total + b, total);
            store(sums.moment + b, moment);
        }
        owners(c, tile, first, count, [&](int64_t j, int64_t v) { own[tile * T + j] = z[v * T + j] * c.sharpness; });
    }
}

// -> lse, log-probability of the target and entropy (0 where not asked for), each (M,)
template <class X> void forward(const Call& c, X* packs, Sums* sums, float* lse, float* logp, float* entropy) {
    const int64_t n = c.tiles(), h = c.size, segments = (c.vocabulary + SEGMENT - 1) / SEGMENT;
#pragma omp parallel num_threads(c.threads)
    {
        std::vector<float> z(PART * T);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < n; t++) across((const X*)c.hidden + t * T * h, h, c.real(t), h, packs + t * T * h);
#pragma omp for schedule(dynamic, 1)
        for (int64_t u = 0; u < segments * n; u++) {  // the segment's part of the weight serves many tiles
            const int64_t begin = u / n * SEGMENT, end = std::min(begin + SEGMENT, c.vocabulary);
            forward_segment(c, u % n, begin, end, packs + u % n * T * h, sums[u], logp, z.data());
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < c.rows; i++) {
            const int64_t t = i / T, j = i % T;
            float most = NOTHING, total = 0, moment = 0;
            for (int64_t s = 0; s < segments; s++) most = std::max(most, sums[s * n + t].most[j]);
            for (int64_t s = 0; s < segments; s++) {
                const Sums& part = sums[s * n + t];
                const float lower = part.most[j] - most, share = std::exp2(lower);
                total += part.total[j] * share;
                moment += (part.moment[j] + part.total[j] * lower) * share;
            }
            lse[i] = (most + std::log2(total)) / LOG2E;
            entropy[i] = c.with_entropy ? (std::log2(total) - moment / total) / LOG2E : 0;
            logp[i] -= lse[i];
        }
        c.release(PAIRS<X>);
    }
}

// Of each row: softmax(z) * (on_share + on_entropy * (ln softmax(z) + entropy)), and at the target ``own``.
struct Slopes {
    const float *lse, *on_share, *entropy, *on_entropy, *own;  // each (n T,), zeros beyond M; of entropy only where asked
};

// A tile's gradient of a span, (SPAN, T) in rows of ACROSS, as a right side: float as it lies, bf16 with two
// neighbouring rows interleaved, in ``room``.
template <class X> struct Right {
    const X* at;
    int64_t step;
};
inline Right<float> right_side(const float* x, float*) { return {x, ACROSS}; }
inline Right<bf16> right_side(const bf16* x, bf16* room) {
    auto row = [](const bf16* from) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)); };
    for (int64_t v = 0; v < SPAN; v += 2)
        for (int64_t b = 0; b < T; b += W) {
            const bf16* low = x + v * ACROSS + b;
            const __m512i both = _mm512_or_si512(row(low), _mm512_slli_epi32(row(low + ACROSS), 16));
            _mm512_storeu_si512((int32_t*)(room + v * T) + b, both);
        }
    return {room, T};
}

// Gradient of the logits of a tile and a span, transposed: (SPAN, T) in rows of ACROSS, those beyond the vocabulary 0.
template <class X>
void descend(const Call& c, const Slopes& s, int64_t tile, int64_t begin, int64_t real, const X* rows_across, X* to,
             float* z) {
    const __m512 scale = _mm512_set1_ps(c.sharpness * LOG2E), ln2 = _mm512_set1_ps(1 / LOG2E);
    const int64_t at = tile * T;
    for (int64_t first = 0; first < real; first += PART) {
        const int64_t count = std::min(PART, real - first);
        logits(c, begin + first, count, rows_across, z);
        for (int64_t b = 0; b < T; b += W) {
            const __m512 minus = _mm512_mul_ps(load(s.lse + at + b), _mm512_set1_ps(-LOG2E)), on = load(s.on_share + at + b);
            const __m512 on_entropy = c.with_entropy ? load(s.on_entropy + at + b) : on;
            const __m512 entropy = c.with_entropy ? load(s.entropy + at + b) : on;
            for (int64_t v = 0; v < count; v++) {
                const __m512 log2p = _mm512_fmadd_ps(load(z + v * T + b), scale, minus);
                __m512 weight = on;
                if (c.with_entropy)
                    weight = _mm512_fmadd_ps(on_entropy, _mm512_fmadd_ps(log2p, ln2, entropy), on);
                store(to + (first + v) * ACROSS + b, _mm512_mul_ps(power<X>(log2p), weight));
            }
        }
    }
    owners(c, tile, begin, real,
           [&](int64_t j, int64_t v) { store(to + v * ACROSS + j, _mm512_set1_ps(s.own[at + j]), 1); });
    for (int64_t v = real; v < SPAN; v++) std::memset(to + v * ACROSS, 0, T * sizeof(X));
}

// The span's part of the weight, transposed: (h, SPAN) in rows of ALONG, columns beyond the vocabulary 0. Words of
// ``along``, turned.
template <class X> void turn_weight(const Call& c, int64_t begin, int64_t real, int64_t part, X* to, X* room) {
    const int64_t h = c.size, words = T * sizeof(X) / 4, stride = ALONG * sizeof(X) / 4;
    const X* from = (const X*)c.weight + (begin + part * T) * h;
    along(from, h, std::clamp(real - part * T, int64_t(0), T), h, room);
    for (int64_t w = 0; w < words; w += W)
        for (int64_t e = 0; e < h; e += W) {
            __m512i r[16];
            for (int64_t j = 0; j < W; j++) r[j] = _mm512_loadu_si512((const int32_t*)room + (w + j) * h + e);
            transpose(r);
            for (int64_t j = 0; j < W; j++) _mm512_storeu_si512((int32_t*)to + (e + j) * stride + part * words + w, r[j]);
        }
}

// (h, T) float -> T rows of h
template <class X> void turn_back(const float* x, int64_t real, int64_t h, X* to) {
    for (int64_t b = 0; b < T; b += W)
        for (int64_t e = 0; e < h; e += W) {
            __m512i r[16];
            for (int64_t j = 0; j < W; j++) r[j] = _mm512_loadu_si512(x + (e + j) * T + b);
            transpose(r);
            for (int64_t j = 0; j < std::min(W, real - b); j++) store(to + (b + j) * h + e, _mm512_castsi512_ps(r[j]));
        }
}

template <class X>
void backward(const Call& c, const Slopes& s, X* packs, X* slopes, X* turned, float* sums, X* d_hidden, X* d_weight) {
    const int64_t n = c.tiles(), h = c.size;
    X* rows_along = packs + n * T * h;
#pragma omp parallel num_threads(c.threads)
    {
        std::vector<float> z(std::max(PART * T, PART * h));
        std::vector<X> room(std::max(SPAN * T, T * h));
#pragma omp for schedule(static)
        for (int64_t t = 0; t < n; t++) {
            const X* rows = (const X*)c.hidden + t * T * h;
            across(rows, h, c.real(t), h, packs + t * T * h);
            if (d_weight) along(rows, h, c.real(t), h, rows_along + t * T * h);
        }
        for (int64_t begin = 0; begin < c.vocabulary; begin += SPAN) {
            const int64_t real = std::min(SPAN, c.vocabulary - begin);
#pragma omp for schedule(static)
            for (int64_t part = 0; part < SPAN / T; part++) turn_weight(c, begin, real, part, turned, room.data());
#pragma omp for schedule(static)
            for (int64_t t = 0; t < n; t++) {
                X* to = slopes + t / GROUP * SPAN * ACROSS + t % GROUP * T;
                descend(c, s, t, begin, real, packs + t * T * h, to, z.data());
                const Right<X> right = right_side(to, room.data());
                c.product(h, T, SPAN, ALONG, right.step, T, begin > 0, turned, right.at, sums + t * h * T, PAIRS<X>);
            }
            if (!d_weight) continue;
#pragma omp for schedule(static)
            for (int64_t first = 0; first < (real + PART - 1) / PART * PART; first += PART) {
                for (int64_t t = 0; t < n; t += GROUP)
                    c.product(PART, h, std::min(GROUP, n - t) * T, ACROSS, h, h, t > 0,
                              slopes + (t / GROUP * SPAN + first) * ACROSS, rows_along + t * T * h, z.data(), PAIRS<X>);
                X* to = d_weight + (begin + first) * h;
                for (int64_t i = 0, all = std::min(PART, real - first) * h; i < all; i += W)
                    store(to + i, load(z.data() + i));
            }
        }
#pragma omp for schedule(static)
        for (int64_t t = 0; t < n; t++) turn_back(sums + t * h * T, c.real(t), h, d_hidden + t * T * h);
        c.release(PAIRS<X>);
    }
}

// With weights known beforehand and a small vocabulary: a few hundred rows at a time, whose exponentials are kept until
// their sums are known, so that the logits are made once.
constexpr int64_t KEPT = 1 << 22;  // exponentials at a time, or those of GROUP tiles

inline int64_t parts(const Call& c) { return (c.vocabulary + PART - 1) / PART; }
inline int64_t spans(const Call& c) { return (c.vocabulary + SPAN - 1) / SPAN; }
inline int64_t tiles_kept(const Call& c) {
    const int64_t most = std::max(GROUP, KEPT / c.vocabulary / T / GROUP * GROUP);
    return std::min(most, (c.tiles() + GROUP - 1) / GROUP * GROUP);
}

// Of a tile and a part of the vocabulary: the greatest z / ln 2 of each row and the sum of 2^(. - it); from `settle` on,
// in the sum's place, what turns these exponentials into weighted shares.
struct Kept {
    float top[T], total[T];
};

// Exponentials of a tile and a part, transposed, in rows of ACROSS; the target's z into ``own``.
template <class X>
void keep(const Call& c, int64_t tile, int64_t part, const X* rows_across, X* to, Kept& kept, float* own, float* z) {
    const int64_t first = part * PART, count = std::min(PART, c.vocabulary - first);
    const __m512 scale = _mm512_set1_ps(LOG2E);
    logits(c, first, count, rows_across, z);
    for (int64_t b = 0; b < T; b += W) {
        __m512 top = load(z + b), total = _mm512_setzero_ps();
        for (int64_t v = 1; v < count; v++) top = _mm512_max_ps(top, load(z + v * T + b));
        top = _mm512_mul_ps(top, scale);
        for (int64_t v = 0; v < count; v++) {
            const __m512 p = power<float>(_mm512_fmsub_ps(load(z + v * T + b), scale, top));
            total = _mm512_add_ps(total, p);
            store(to + v * ACROSS + b, p);
        }
        store(kept.top + b, top);
        store(kept.total + b, total);
    }
    owners(c, tile, first, count, [&](int64_t j, int64_t v) { own[tile * T + j] = z[v * T + j]; });
}

// A tile's sums -> log-probabilities from z, and of each part what turns its exponentials into weighted shares.
inline void settle(const Call& c, int64_t tile, const float* weight, Kept* kept, float* logp) {
    const int64_t n = parts(c);
    alignas(64) float lse[W];
    for (int64_t b = 0; b < T; b += W) {
        __m512 most = load(kept[0].top + b), total = _mm512_setzero_ps();
        for (int64_t p = 1; p < n; p++) most = _mm512_max_ps(most, load(kept[p].top + b));
        for (int64_t p = 0; p < n; p++)
            total = _mm512_fmadd_ps(load(kept[p].total + b), power<float>(_mm512_sub_ps(load(kept[p].top + b), most)), total);
        store(lse, total);
        for (int64_t j = 0; j < W; j++) lse[j] = std::log2(lse[j]);
        const __m512 all = _mm512_add_ps(most, load(lse)), on = load(weight + tile * T + b);
        for (int64_t p = 0; p < n; p++)
            store(kept[p].total + b, _mm512_mul_ps(power<float>(_mm512_sub_ps(load(kept[p].top + b), all)), on));
        const __mmask16 real = lanes(c.real(tile) - b);
        float* to = logp + tile * T + b;
        store(to, _mm512_fnmadd_ps(all, _mm512_set1_ps(1 / LOG2E), load(to, real)), real);
    }
}

// A tile's exponentials of a span -> weight * (softmax - 1 at the target), and zeros beyond the vocabulary.
template <class X>
void weigh(const Call& c, int64_t tile, int64_t begin, const float* weight, const Kept* kept, const float* logp, X* to) {
    const int64_t real = std::min(SPAN, c.vocabulary - begin);
    for (int64_t first = 0; first < real; first += PART)
        for (int64_t b = 0; b < T; b += W) {
            const __m512 factor = load(kept[(begin + first) / PART].total + b);
            X* x = to + first * ACROSS + b;
            for (int64_t v = 0, count = std::min(PART, real - first); v < count; v++, x += ACROSS)
                store(x, _mm512_mul_ps(load(x), factor));
        }
    owners(c, tile, begin, real, [&](int64_t j, int64_t v) {
        const int64_t i = tile * T + j;
        store(to + v * ACROSS + j, _mm512_set1_ps((std::exp(logp[i]) - 1) * weight[i]), 1);
    });
    for (int64_t v = real; v < SPAN; v++) std::memset(to + v * ACROSS, 0, T * sizeof(X));
}

template <class X>
void nll(const Call& c, const float* weight, X* packs, X* slopes, X* turned, Kept* kept, float* sums, float* logp,
         X* d_hidden, float* d_weight) {
    const int64_t n = c.tiles(), h = c.size, every = tiles_kept(c), count = parts(c), rows = spans(c) * SPAN;
    X* rows_along = packs + n * T * h;
#pragma omp parallel num_threads(c.threads)
    {
        std::vector<float> z(PART * T);
        std::vector<X> room(std::max(SPAN * T, T * h));
#pragma omp for schedule(static) nowait
        for (int64_t t = 0; t < n; t++) {
            const X* from = (const X*)c.hidden + t * T * h;
            across(from, h, c.real(t), h, packs + t * T * h);
            if (d_weight) along(from, h, c.real(t), h, rows_along + t * T * h);
        }
#pragma omp for schedule(static)
        for (int64_t u = 0; u < rows / T; u++) {
            const int64_t begin = u * T / SPAN * SPAN, real = std::min(SPAN, c.vocabulary - begin);
            turn_weight(c, begin, real, u % (SPAN / T), turned + begin / SPAN * h * ALONG, room.data());
        }
        for (int64_t begin = 0; begin < n; begin += every) {
            const int64_t here = std::min(every, n - begin);
            auto slopes_of = [&](int64_t t) { return slopes + t / GROUP * rows * ACROSS + t % GROUP * T; };
#pragma omp for schedule(dynamic, 4)
            for (int64_t u = 0; u < here * count; u++) {  // a part of the weight serves many tiles
                const int64_t p = u / here, t = u % here;
                keep(c, begin + t, p, packs + (begin + t) * T * h, slopes_of(t) + p * PART * ACROSS, kept[t * count + p],
                     logp, z.data());
            }
#pragma omp for schedule(static)
            for (int64_t t = 0; t < here; t++) {
                settle(c, begin + t, weight, kept + t * count, logp);
                for (int64_t first = 0; first < rows; first += SPAN) {
                    X* to = slopes_of(t) + first * ACROSS;
                    weigh(c, begin + t, first, weight, kept + t * count, logp, to);
                    const Right<X> right = right_side(to, room.data());
                    c.product(h, T, SPAN, ALONG, right.step, T, first > 0, turned + first / SPAN * h * ALONG, right.at,
                              sums + (begin + t) * h * T, PAIRS<X>);
                }
            }
            if (!d_weight) continue;
#pragma omp for schedule(static)
            for (int64_t p = 0; p < rows / PART; p++)
                for (int64_t t = 0; t < here; t += GROUP)
                    c.product(PART, h, std::min(GROUP, here - t) * T, ACROSS, h, h, begin + t > 0,
                              slopes_of(t) + p * PART * ACROSS, rows_along + (begin + t) * T * h, d_weight + p * PART * h,
                              PAIRS<X>);
        }
#pragma omp for schedule(static)
        for (int64_t t = 0; t < n; t++) turn_back(sums + t * h * T, c.real(t), h, d_hidden + t * T * h);
        c.release(PAIRS<X>);
    }
}

}  // namespace

extern "C" {

int64_t fledge_head_sums(const Call* c) { return (c->vocabulary + SEGMENT - 1) / SEGMENT * c->tiles() * sizeof(Sums); }
int64_t fledge_head_slopes(const Call* c) { return (c->tiles() + GROUP - 1) / GROUP * SPAN * ACROSS; }
int64_t fledge_head_turned(const Call* c) { return c->size * ALONG; }

// packs: room for n T h; sums: for `fledge_head_sums` bytes -> lse, logp, entropy, each (M,)
void fledge_head(int half, const Call* c, void* packs, void* sums, float* lse, float* logp, float* entropy) {
    half ? forward(*c, (bf16*)packs, (Sums*)sums, lse, logp, entropy)
         : forward(*c, (float*)packs, (Sums*)sums, lse, logp, entropy);
}

// packs: room for 2 n T h, slopes and turned: for so many X, sums: n h T -> d_hidden (M, h), d_weight (V, h)
// or null, where the weight is frozen: then that product is not made, and half of packs is room for nothing
void fledge_head_backward(int half, const Call* c, const Slopes* s, void* packs, void* slopes, void* turned, float* sums,
                          void* d_hidden, void* d_weight) {
    half ? backward(*c, *s, (bf16*)packs, (bf16*)slopes, (bf16*)turned, sums, (bf16*)d_hidden, (bf16*)d_weight)
         : backward(*c, *s, (float*)packs, (float*)slopes, (float*)turned, sums, (float*)d_hidden, (float*)d_weight);
}

int64_t fledge_head_nll_slopes(const Call* c) { return tiles_kept(*c) / GROUP * spans(*c) * SPAN * ACROSS; }
int64_t fledge_head_nll_turned(const Call* c) { return spans(*c) * c->size * ALONG; }
int64_t fledge_head_nll_kept(const Call* c) { return tiles_kept(*c) * parts(*c) * sizeof(Kept); }
int64_t fledge_head_nll_rows(const Call* c) { return spans(*c) * SPAN; }

// weight (n T,), zeros beyond M; packs: room for 2 n T h, slopes and turned: for so many X, kept: bytes, sums: n h T
// -> logp (M,), of -sum of logp * weight the gradients d_hidden (M, h) and d_weight (`fledge_head_nll_rows`, h) float,
// or null, as above
void fledge_head_nll(int half, const Call* c, const float* weight, void* packs, void* slopes, void* turned, void* kept,
                     float* sums, float* logp, void* d_hidden, float* d_weight) {
    half ? nll(*c, weight, (bf16*)packs, (bf16*)slopes, (bf16*)turned, (Kept*)kept, sums, logp, (bf16*)d_hidden, d_weight)
         : nll(*c, weight, (float*)packs, (float*)slopes, (float*)turned, (Kept*)kept, sums, logp, (float*)d_hidden,
               d_weight);
}

}
