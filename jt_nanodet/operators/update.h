// Clipping, AdamW and the moving average of the weights in one pass over all tensors, in place.
//
// A table has one row for each tensor, all numbers as int64: addresses of gradient, parameter, both moments and average (0: there is
// none), number of elements, and whether it is a counter (int32). The work is cut into pieces of one size, so that large and small tensors
// keep all threads busy; sums are added in the order of the pieces, whatever the number of threads.
namespace nanodet {

struct Row {
    int64_t gradient, parameter, first, second, average, number, counter;
};

struct Piece {
    int row;
    int64_t begin, end;
};

inline std::vector<Piece> pieces(const Row* rows, int number) {
    constexpr int64_t SIZE = 16384;
    std::vector<Piece> found;
    for (int r = 0; r < number; r++)
        for (int64_t i = 0; i < rows[r].number; i += SIZE) found.push_back({r, i, std::min(i + SIZE, rows[r].number)});
    return found;
}

template <class T>
inline T* at(int64_t address) { return reinterpret_cast<T*>(address); }

// root of the sum of the squares of all gradients
inline float norm(const Row* rows, int number) {
    const std::vector<Piece> all = pieces(rows, number);
    std::vector<double> sums(all.size());
    #pragma omp parallel for schedule(static)
    for (size_t p = 0; p < all.size(); p++) {
        const float* g = at<float>(rows[all[p].row].gradient);
        Doubles sum{};
        int64_t i = all[p].begin;
        for (; i + HALF <= all[p].end; i += HALF) sum += widened(g + i) * widened(g + i);
        double rest = 0;
        for (; i < all[p].end; i++) rest += double(g[i]) * g[i];
        sums[p] = total(sum) + rest;
    }
    double sum = 0;
    for (double one : sums) sum += one;
    return float(std::sqrt(sum));
}

// The numbers of one step that hold for every tensor, each rounded once from the float64 it was computed in.
struct Rule {
    float clip, beta1, rest1, beta2, rest2, epsilon, root, keep, share;
};

// decay: 1 - rate * weight decay; size: rate / (1 - beta1 ^ steps)
inline void update(const Row* rows, const double* decay, const double* size, int number, const Rule& rule) {
    const std::vector<Piece> all = pieces(rows, number);
    #pragma omp parallel for schedule(static)
    for (size_t q = 0; q < all.size(); q++) {
        const Row& row = rows[all[q].row];
        const int64_t begin = all[q].begin, end = all[q].end;
        if (row.counter) {
            const int32_t* p = at<int32_t>(row.parameter);
            int32_t* e = at<int32_t>(row.average);
            for (int64_t i = begin; i < end; i++) e[i] = int32_t(float(e[i]) * rule.keep + float(p[i]) * rule.share);
            continue;
        }
        float* p = at<float>(row.parameter);
        if (row.gradient) {
            const float *g = at<float>(row.gradient), shrink = float(decay[all[q].row]), step = float(size[all[q].row]);
            float *m = at<float>(row.first), *v = at<float>(row.second);
            #pragma omp simd
            for (int64_t i = begin; i < end; i++) {
                const float d = g[i] * rule.clip;
                m[i] += (d - m[i]) * rule.rest1;
                v[i] = v[i] * rule.beta2 + d * d * rule.rest2;
                p[i] = p[i] * shrink - m[i] / (std::sqrt(v[i]) / rule.root + rule.epsilon) * step;
            }
        }
        if (row.average) {
            float* e = at<float>(row.average);
            #pragma omp simd
            for (int64_t i = begin; i < end; i++) e[i] = e[i] * rule.keep + p[i] * rule.share;
        }
    }
}

}  // namespace nanodet
