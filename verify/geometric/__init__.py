"""What no rotation, translation, scaling, shear, brightness or contrast of a range changes."""
