const AttendKernels kAttend{};
