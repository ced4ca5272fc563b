// The activations y = sigma(x), each formula once, for the CPU's vectors and for CUDA's scalars.
//
// A formula is a template over the number type V: float, double or a vector of them. It finds select(mask, a,
// b) and math_exp, math_tanh, math_scaled_tanh, math_sigmoid, math_softplus, math_erfc ... for
// that type by overloading; those for scalars are below, those for vectors in cpu/isa/vector_math.h.
//
// backward(dy, saved, parameter) is dy * sigma'(x). `saved` is the output y where y determines sigma'(x), and
// the input x where Formula::saves_input says so. NaN in x gives NaN in both directions; an infinite x gives
// the limit. `parameter` is the slope, alpha or eta of the three formulas that have one.
#pragma once
#include <float.h>
#include <math.h>

#if defined(__CUDACC__)
#define TINYGRAD_NM_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define TINYGRAD_NM_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace tinygrad_nm {

enum class Activation : int {
    identity,
    relu,
    leaky_relu,
    tanh,
    scaled_tanh,
    sigmoid,
    softsign,
    softplus,
    elu,
    gelu,
    sin,
    smooth_relu,
    exp
};

struct ActivationName {
    const char* name;
    Activation kind;
    bool has_parameter;  // a positive finite number
};
constexpr ActivationName activation_names[] = {
    {"identity", Activation::identity, false},
    {"relu", Activation::relu, false},
    {"leaky_relu", Activation::leaky_relu, true},
    {"tanh", Activation::tanh, false},
    {"scaled_tanh", Activation::scaled_tanh, false},
    {"sigmoid", Activation::sigmoid, false},
    {"softsign", Activation::softsign, false},
    {"softplus", Activation::softplus, false},
    {"elu", Activation::elu, true},
    {"gelu", Activation::gelu, false},
    {"sin", Activation::sin, false},
    {"smooth_relu", Activation::smooth_relu, true},
    {"exp", Activation::exp, false},
};

// Scalars as number types.
template <class V>
struct Number {
    using Scalar = V;
    static TINYGRAD_NM_HOST_DEVICE V constant(double c) { return V(c); }
};

// C functions, not their std:: overloads: see cpu/isa/body.h.
#define TINYGRAD_NM_SCALAR_MATH(name)                      \
    TINYGRAD_NM_HOST_DEVICE float math_##name(float x) {   \
        return ::name##f(x);                               \
    }                                                      \
    TINYGRAD_NM_HOST_DEVICE double math_##name(double x) { \
        return ::name(x);                                  \
    }
TINYGRAD_NM_SCALAR_MATH(exp)
TINYGRAD_NM_SCALAR_MATH(expm1)
TINYGRAD_NM_SCALAR_MATH(log1p)
TINYGRAD_NM_SCALAR_MATH(tanh)
TINYGRAD_NM_SCALAR_MATH(sin)
TINYGRAD_NM_SCALAR_MATH(cos)
TINYGRAD_NM_SCALAR_MATH(erfc)
#undef TINYGRAD_NM_SCALAR_MATH
TINYGRAD_NM_HOST_DEVICE float math_abs(float x) {
    return ::fabsf(x);
}
TINYGRAD_NM_HOST_DEVICE double math_abs(double x) {
    return ::fabs(x);
}
TINYGRAD_NM_HOST_DEVICE float select(bool mask, float a, float b) {
    return mask ? a : b;
}
TINYGRAD_NM_HOST_DEVICE double select(bool mask, double a, double b) {
    return mask ? a : b;
}

// 1.7159 tanh(2x/3): LeCun et al., "Efficient BackProp", 1998, section 4.4.
constexpr double scaled_tanh_height = 1.7159, scaled_tanh_rate = 2.0 / 3.0;
TINYGRAD_NM_HOST_DEVICE float math_scaled_tanh(float x) {
    return float(scaled_tanh_height) * math_tanh(float(scaled_tanh_rate) * x);
}
TINYGRAD_NM_HOST_DEVICE double math_scaled_tanh(double x) {
    return scaled_tanh_height * math_tanh(scaled_tanh_rate * x);
}
// 1 / (1 + exp(-x)); the exponent is never positive, so that nothing overflows.
TINYGRAD_NM_HOST_DEVICE float math_sigmoid(float x) {
    const float e = math_exp(-math_abs(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}
TINYGRAD_NM_HOST_DEVICE double math_sigmoid(double x) {
    const double e = math_exp(-math_abs(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}

// log(1 + exp(x)), without overflow; NaN stays.
TINYGRAD_NM_HOST_DEVICE float math_softplus(float x) {
    return (x > 0 ? x : 0) + math_log1p(math_exp(-math_abs(x)));
}
TINYGRAD_NM_HOST_DEVICE double math_softplus(double x) {
    return (x > 0 ? x : 0) + math_log1p(math_exp(-math_abs(x)));
}

// Holds x in [low, high]; NaN stays.
template <class V>
TINYGRAD_NM_HOST_DEVICE V clamp(V x, V low, V high) {
    x = select(x < low, low, x);
    return select(x > high, high, x);
}

#define TINYGRAD_NM_FORWARD \
    template <class V>      \
    static TINYGRAD_NM_HOST_DEVICE V forward([[maybe_unused]] V x, [[maybe_unused]] V parameter)
#define TINYGRAD_NM_BACKWARD(saved) \
    template <class V>              \
    static TINYGRAD_NM_HOST_DEVICE V backward(V dy, [[maybe_unused]] V saved, [[maybe_unused]] V parameter)

struct Identity {
    static constexpr bool saves_input = false;
    TINYGRAD_NM_FORWARD { return x; }
    TINYGRAD_NM_BACKWARD(y) { return dy; }
};

// max(x, 0); sigma'(0) = 0.
struct Relu {
    static constexpr bool saves_input = false;
    TINYGRAD_NM_FORWARD {
        const V zero = Number<V>::constant(0);
        return select(x <= zero, zero, x);
    }
    TINYGRAD_NM_BACKWARD(y) {
        const V zero = Number<V>::constant(0);
        return select(y > zero, dy, select(y <= zero, zero, y));
    }
};

// x for x > 0, else slope x; sigma'(0) = slope. The slope is positive, so that y has the sign of x.
struct LeakyRelu {
    static constexpr bool saves_input = false;
    TINYGRAD_NM_FORWARD { return select(x > Number<V>::constant(0), x, parameter * x); }
    TINYGRAD_NM_BACKWARD(y) {
        const V zero = Number<V>::constant(0);
        return select(y > zero, dy, select(y <= zero, parameter * dy, y));
    }
};

struct Tanh {
    static constexpr bool saves_input = false;
    TINYGRAD_NM_FORWARD { return math_tanh(x); }
    TINYGRAD_NM_BACKWARD(y) {
        const V one = Number<V>::constant(1);
        return dy * ((one - y) * (one + y));
    }
};

struct ScaledTanh {
    static constexpr bool saves_input = false;
    static constexpr double height = scaled_tanh_height, rate = scaled_tanh_rate;
    TINYGRAD_NM_FORWARD { return math_scaled_tanh(x); }
    TINYGRAD_NM_BACKWARD(y) {
        const V a = Number<V>::constant(height);
        return dy * (Number<V>::constant(rate / height) * ((a - y) * (a + y)));
    }
};

struct Sigmoid {
    static constexpr bool saves_input = false;
    TINYGRAD_NM_FORWARD { return math_sigmoid(x); }
    TINYGRAD_NM_BACKWARD(y) { return dy * (y * (Number<V>::constant(1) - y)); }
};

// x / (1 + |x|), its limit 1 at infinity by way of the largest finite number; sigma' = (1 - |y|)^2.
struct Softsign {
    static constexpr bool saves_input = false;
    TINYGRAD_NM_FORWARD {
        const V largest = Number<V>::constant(sizeof(typename Number<V>::Scalar) == 4 ? FLT_MAX : DBL_MAX);
        x = clamp(x, -largest, largest);
        return x / (Number<V>::constant(1) + math_abs(x));
    }
    TINYGRAD_NM_BACKWARD(y) {
        const V root = Number<V>::constant(1) - math_abs(y);
        return dy * (root * root);
    }
};

// log(1 + exp(x)); sigma' = sigmoid.
struct Softplus {
    static constexpr bool saves_input = true;
    TINYGRAD_NM_FORWARD { return math_softplus(x); }
    TINYGRAD_NM_BACKWARD(x) { return dy * Sigmoid::forward(x, parameter); }
};

// x for x > 0, else alpha (exp(x) - 1); sigma' for x <= 0 is y + alpha. Clevert et al. 2016.
struct Elu {
    static constexpr bool saves_input = false;
    TINYGRAD_NM_FORWARD { return select(x > Number<V>::constant(0), x, parameter * math_expm1(x)); }
    TINYGRAD_NM_BACKWARD(y) { return select(y > Number<V>::constant(0), dy, dy * (y + parameter)); }
};

// x Phi(x), Phi(x) = erfc(-x / sqrt 2) / 2 the normal distribution: Hendrycks and Gimpel 2016. erfc rather
// than 1 + erf keeps the left tail. Beyond 40 Phi and its density are 0 or 1, also in double.
struct Gelu {
    static constexpr bool saves_input = true;
    static constexpr double beyond = 40, root_half = 0.70710678118654752440, density = 0.39894228040143267794;
    TINYGRAD_NM_FORWARD {
        const V half = Number<V>::constant(0.5), low = Number<V>::constant(-beyond);
        return (half * select(x < low, low, x)) * math_erfc(Number<V>::constant(-root_half) * x);
    }
    TINYGRAD_NM_BACKWARD(x) {
        const V half = Number<V>::constant(0.5), end = Number<V>::constant(beyond);
        const V t = clamp(x, -end, end);
        return dy * (half * math_erfc(Number<V>::constant(-root_half) * t) +
                     t * (Number<V>::constant(density) * math_exp(-half * t * t)));
    }
};

struct Sin {
    static constexpr bool saves_input = true;
    TINYGRAD_NM_FORWARD { return math_sin(x); }
    TINYGRAD_NM_BACKWARD(x) { return dy * math_cos(x); }
};

// x^2 / (4 eta) + x / 2 + eta / 4 = (x + eta)^2 / (4 eta) for |x| <= eta, else max(x, 0).
struct SmoothRelu {
    static constexpr bool saves_input = true;
    TINYGRAD_NM_FORWARD {
        const V t = x + parameter;
        return select(math_abs(x) <= parameter, t * (t / (Number<V>::constant(4) * parameter)),
                      Relu::forward(x, parameter));
    }
    TINYGRAD_NM_BACKWARD(x) {
        const V zero = Number<V>::constant(0), one = Number<V>::constant(1);
        const V slope = (x + parameter) / (Number<V>::constant(2) * parameter);
        return dy * clamp(slope, zero, one);
    }
};

struct Exp {
    static constexpr bool saves_input = false;
    TINYGRAD_NM_FORWARD { return math_exp(x); }
    TINYGRAD_NM_BACKWARD(y) { return dy * y; }
};

#undef TINYGRAD_NM_FORWARD
#undef TINYGRAD_NM_BACKWARD

// visit(Formula{}) for the formula of `kind`: the one place where a kind becomes code. A visitor may be of
// the host alone, which nvcc then must not warn of.
#if defined(__CUDACC__)
#pragma nv_exec_check_disable
#endif
template <class Visitor>
TINYGRAD_NM_HOST_DEVICE void with_activation(Activation kind, Visitor&& visit) {
    switch (kind) {
        case Activation::identity:
            return visit(Identity{});
        case Activation::relu:
            return visit(Relu{});
        case Activation::leaky_relu:
            return visit(LeakyRelu{});
        case Activation::tanh:
            return visit(Tanh{});
        case Activation::scaled_tanh:
            return visit(ScaledTanh{});
        case Activation::sigmoid:
            return visit(Sigmoid{});
        case Activation::softsign:
            return visit(Softsign{});
        case Activation::softplus:
            return visit(Softplus{});
        case Activation::elu:
            return visit(Elu{});
        case Activation::gelu:
            return visit(Gelu{});
        case Activation::sin:
            return visit(Sin{});
        case Activation::smooth_relu:
            return visit(SmoothRelu{});
        case Activation::exp:
            return visit(Exp{});
    }
}

}  // namespace tinygrad_nm
