"""Admin pages for operators' accounts and groups, with forms in the style of the other pages."""

from django.contrib import admin
from django.contrib.auth import admin as auth_admin
from django.contrib.auth.models import Group, User
from unfold.admin import ModelAdmin, StackedInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from orchestrator_site.base.memberships.models import Membership
from orchestrator_site.base.read_only_admin import ListedLookups

admin.site.unregister(User)
admin.site.unregister(Group)


class MembershipInline(StackedInline):  # type: ignore[misc]
    """The namespace to which a user is restricted, if there is one."""

    model = Membership
    extra = 0


@admin.register(User)
class UserAdmin(ListedLookups, auth_admin.UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    inlines = (MembershipInline,)


@admin.register(Group)
class GroupAdmin(ListedLookups, auth_admin.GroupAdmin, ModelAdmin):  # type: ignore[misc]
    pass
