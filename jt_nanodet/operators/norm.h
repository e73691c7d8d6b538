// Normalisation in training: statistics in float64 over two passes, then (x - mean) * scale + bias and a leaky slope left of 0.
//
// A "set" is what shares one mean: a channel over all images (BatchNorm) or a group of channels of one image (GroupNorm). It consists of
// runs of `size` floats that share weight and bias; run r of set s begins at `start(s, r)` and belongs to channel `channel(s, r)`.
// One thread does a whole set in a fixed order, so results do not depend on the number of threads.
namespace nanodet {

struct Layout {
    int images, channels, groups;  // groups == 0: BatchNorm
    size_t size;                   // floats of one channel of one image

    int sets() const { return groups ? images * groups : channels; }
    int runs() const { return groups ? channels / groups : images; }
    int channel(int s, int r) const { return groups ? (s % groups) * runs() + r : s; }
    size_t start(int s, int r) const {
        const size_t image = groups ? s / groups : r;
        return (image * channels + channel(s, r)) * size;
    }
    double count() const { return double(runs()) * double(size); }
};

inline double sum(const float* x, size_t n) {
    Doubles a{}, b{};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) a += widened(x + i), b += widened(x + i + HALF);
    double rest = 0;
    for (; i < n; i++) rest += x[i];
    return total(a + b) + rest;
}

inline double squares(const float* x, size_t n, double mean) {
    Doubles a{}, b{};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const Doubles p = widened(x + i) - mean, q = widened(x + i + HALF) - mean;
        a += p * p, b += q * q;
    }
    double rest = 0;
    for (; i < n; i++) rest += (x[i] - mean) * (x[i] - mean);
    return total(a + b) + rest;
}

// mean and biased variance of every set
inline void moments(const float* x, const Layout& at, double eps, float* mean, float* inverse, double* variance) {
    #pragma omp parallel for schedule(static)
    for (int s = 0; s < at.sets(); s++) {
        double m = 0, v = 0;
        for (int r = 0; r < at.runs(); r++) m += sum(x + at.start(s, r), at.size);
        m /= at.count();
        for (int r = 0; r < at.runs(); r++) v += squares(x + at.start(s, r), at.size, m);
        v /= at.count();
        mean[s] = float(m);
        inverse[s] = float(1 / std::sqrt(v + eps));
        if (variance) variance[s] = v;
    }
}

template <class T>
inline T affine(T x, float mean, float scale, float bias) { return (x - mean) * scale + bias; }

// y = f((x - mean) * inverse * weight + bias), f(z) = z where positive, else slope * z; slope 1 leaves z as it is
inline void normalise(const float* x, const float* weight, const float* bias, const float* mean, const float* inverse, const Layout& at, float slope, float* y) {
    #pragma omp parallel for schedule(static)
    for (int s = 0; s < at.sets(); s++) {
        for (int r = 0; r < at.runs(); r++) {
            const int c = at.channel(s, r);
            const float m = mean[s], scale = inverse[s] * weight[c], shift = bias[c];
            const float* in = x + at.start(s, r);
            float* out = y + at.start(s, r);
            size_t i = 0;
            for (; i + LANES <= at.size; i += LANES) {
                const Floats z = affine(load<Floats>(in + i), m, scale, shift);
                store(out + i, z > 0 ? z : slope * z);
            }
            for (; i < at.size; i++) {
                const float z = affine(in[i], m, scale, shift);
                out[i] = z > 0 ? z : slope * z;
            }
        }
    }
}

// With d the gradient left of the slope, w the weight, h = (x - mean) * inverse and averages over the set:
//   gx = inverse * (w d - average(w d) - h average(w d h)),  gweight = sum(d h),  gbias = sum(d)
// `partial` holds sum(d) and sum(d (x - mean)) of every run.
inline void normalise_backward(const float* x, const float* gy, const float* weight, const float* bias, const float* mean, const float* inverse,
                               const Layout& at, float slope, float* gx, float* gweight, float* gbias) {
    std::vector<double> partial(2 * size_t(at.sets()) * at.runs());
    #pragma omp parallel for schedule(static)
    for (int s = 0; s < at.sets(); s++) {
        const float m = mean[s];
        double sums = 0, products = 0;
        for (int r = 0; r < at.runs(); r++) {
            const int c = at.channel(s, r);
            const float scale = inverse[s] * weight[c], shift = bias[c];
            const float *in = x + at.start(s, r), *g = gy + at.start(s, r);
            Doubles d0{}, d1{}, p0{}, p1{};
            size_t i = 0;
            for (; i + LANES <= at.size; i += LANES) {
                const Floats v = load<Floats>(in + i), h = load<Floats>(g + i);
                const Floats d = affine(v, m, scale, shift) > 0 ? h : slope * h, centred = v - m;
                float dd[LANES], cc[LANES];
                store(dd, d), store(cc, centred);
                const Doubles a = widened(dd), b = widened(dd + HALF);
                d0 += a, d1 += b;
                p0 += a * widened(cc), p1 += b * widened(cc + HALF);
            }
            double q = 0, p = 0;
            for (; i < at.size; i++) {
                const float d = affine(in[i], m, scale, shift) > 0 ? g[i] : slope * g[i];
                q += d, p += double(d) * double(in[i] - m);
            }
            double* kept = &partial[2 * (size_t(s) * at.runs() + r)];
            kept[0] = total(d0 + d1) + q, kept[1] = total(p0 + p1) + p;
            sums += kept[0] * weight[c], products += kept[1] * weight[c];
        }
        const float average = float(sums / at.count());
        const float slant = float(products / at.count() * inverse[s] * inverse[s]);
        for (int r = 0; r < at.runs(); r++) {
            const int c = at.channel(s, r);
            const float scale = inverse[s] * weight[c], shift = bias[c], w = weight[c], factor = inverse[s];
            const float *in = x + at.start(s, r), *g = gy + at.start(s, r);
            float* out = gx + at.start(s, r);
            size_t i = 0;
            for (; i + LANES <= at.size; i += LANES) {
                const Floats v = load<Floats>(in + i), h = load<Floats>(g + i);
                const Floats d = affine(v, m, scale, shift) > 0 ? h : slope * h;
                store(out + i, factor * (d * w - average - (v - m) * slant));
            }
            for (; i < at.size; i++) {
                const float d = affine(in[i], m, scale, shift) > 0 ? g[i] : slope * g[i];
                out[i] = factor * (d * w - average - (in[i] - m) * slant);
            }
        }
    }
    std::vector<double> gw(at.channels), gb(at.channels);
    for (int s = 0; s < at.sets(); s++)
        for (int r = 0; r < at.runs(); r++) {
            const double* kept = &partial[2 * (size_t(s) * at.runs() + r)];
            gb[at.channel(s, r)] += kept[0];
            gw[at.channel(s, r)] += kept[1] * inverse[s];
        }
    std::copy(gw.begin(), gw.end(), gweight);
    std::copy(gb.begin(), gb.end(), gbias);
}

}  // namespace nanodet
