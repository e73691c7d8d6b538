// Max-pooling on the phases of planes.h: of equal values the first in the window wins, NaN wins over everything, as in PyTorch.
namespace nanodet {

inline void max_pool(const float* x, int planes, const Window& w, float* y, uint8_t* chosen) {
    const size_t in_size = size_t(w.height) * w.width, out_size = size_t(w.rows) * w.columns;
    #pragma omp parallel
    {
        std::vector<float> phases(w.input_floats(), -INFINITY), best(w.output_floats());
        std::vector<int32_t> which(w.output_floats());
        #pragma omp for schedule(static)
        for (int p = 0; p < planes; p++) {
            split(w, x + p * in_size, phases.data());
            for (size_t i = 0; i < w.length(); i += LANES) {
                Floats top = load<Floats>(&phases[i + w.offset(0)]);
                Ints index{};
                for (int t = 1; t < w.taps(); t++) {
                    const Floats v = load<Floats>(&phases[i + w.offset(t)]);
                    const Ints better = (v > top) | (v != v);
                    top = better ? v : top;
                    index = better ? t - Ints{} : index;
                }
                store(&best[i], top);
                store(&which[i], index);
            }
            gather(w, best.data(), y + p * out_size);
            gather(w, which.data(), chosen + p * out_size);
        }
    }
}

inline void max_pool_backward(const float* gy, const uint8_t* chosen, int planes, const Window& w, float* gx) {
    const size_t in_size = size_t(w.height) * w.width, out_size = size_t(w.rows) * w.columns;
    #pragma omp parallel
    {
        std::vector<float> gradient(w.output_floats()), back(w.input_floats());
        std::vector<int32_t> which(w.output_floats(), -1);
        float* g = gradient.data() + w.front();
        int32_t* k = which.data() + w.front();
        #pragma omp for schedule(static)
        for (int p = 0; p < planes; p++) {
            spread(w, gy + p * out_size, g);
            spread(w, chosen + p * out_size, k);
            for (int q = 0; q < w.stride * w.stride; q++)
                for (size_t i = 0; i < w.phase(); i += LANES) {
                    Floats sum{};
                    for (int t = 0; t < w.taps(); t++) {
                        if (w.phase_of(t) != q) continue;
                        const std::ptrdiff_t at = std::ptrdiff_t(i) - std::ptrdiff_t(w.shift(t));
                        sum += load<Ints>(k + at) == t ? load<Floats>(g + at) : Floats{};
                    }
                    store(&back[q * w.phase() + i], sum);
                }
            join(w, back.data(), gx + p * in_size);
        }
    }
}

}  // namespace nanodet
