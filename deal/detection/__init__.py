"""Detection of objects in infrared images: what degradation costs a detector, and what restoration gives back."""
