const GemmKernels kGemm{};
