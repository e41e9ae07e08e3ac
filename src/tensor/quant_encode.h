// Encoders of the quantised types, one block each; quant.cc's table runs them over rows.
//   x: 32 or 256 finite values · w: as many weights of their squared errors · out: the block.
// Every one searches its scales by weighted least squares (quant_fit.h) and is never worse than
// rounding to the nearest level of the plain scale, which is among the candidates.
#pragma once
#include <cstdint>

namespace wels::quant {

void q8_0_encode(const float* x, const float* w, uint8_t* out);
void q4_0_encode(const float* x, const float* w, uint8_t* out);
void q4_1_encode(const float* x, const float* w, uint8_t* out);
void q5_0_encode(const float* x, const float* w, uint8_t* out);
void q5_1_encode(const float* x, const float* w, uint8_t* out);
void iq4_nl_encode(const float* x, const float* w, uint8_t* out);
void mxfp4_encode(const float* x, const float* w, uint8_t* out);

void q2_k_encode(const float* x, const float* w, uint8_t* out);
void q3_k_encode(const float* x, const float* w, uint8_t* out);
void q4_k_encode(const float* x, const float* w, uint8_t* out);
void q5_k_encode(const float* x, const float* w, uint8_t* out);
void q6_k_encode(const float* x, const float* w, uint8_t* out);
void iq4_xs_encode(const float* x, const float* w, uint8_t* out);

}  // namespace wels::quant
