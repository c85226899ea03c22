package runtime

// otherMemory stands for the machine's memory where it is not known.
const otherMemory = 4 << 30
