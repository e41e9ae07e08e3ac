const RowKernels kRow{};
